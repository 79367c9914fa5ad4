// SPDX-License-Identifier: Apache-2.0

#include "tests/fault/fault_home.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <tuple>

#include "src/base/file.h"
#include "tests/support/build.h"
#include "tests/support/qcow2_sample.h"

namespace msb::test {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kDiskBytes = 128 << 10;

// These tests crash processes, never the machine. So a memory file system is as good as a disk, and
// makes flushes free.
fs::path FastDirectory() {
  const fs::path memory = "/dev/shm";
  std::error_code error;
  const fs::space_info space = fs::space(memory, error);
  const bool usable = !error && space.available > (64U << 20) && access(memory.c_str(), W_OK) == 0;
  return usable ? memory / "msb-fault-tests" : test::ScratchDir();
}

// Replaces each run of at least 8 hexadecimal digits with '#', and each other run of decimal digits
// with '0'.
std::string WithoutNumbers(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t hex = i;
    while (hex < text.size() && std::isxdigit(static_cast<unsigned char>(text[hex])) != 0) ++hex;
    std::size_t digits = i;
    while (digits < hex && std::isdigit(static_cast<unsigned char>(text[digits])) != 0) ++digits;
    if (hex - i >= 8) {
      out += '#';
      i = hex;
    } else if (digits > i) {
      out += '0';
      i = digits;
    } else {
      out += text[i++];
    }
  }
  return out;
}

bool IsDatabase(const fs::path& path) { return path.native().find(".db") != std::string::npos; }

void WriteSparsely(const fs::path& path, std::string_view content, unsigned mode) {
  const base::UniqueFd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd || ftruncate(fd.get(), static_cast<off_t>(content.size())) != 0) {
    throw std::runtime_error("cannot write " + path.native());
  }
  constexpr std::size_t kPage = 4096;
  for (std::size_t offset = 0; offset < content.size(); offset += kPage) {
    const std::string_view page = content.substr(offset, kPage);
    static const std::string kZeros(kPage, '\0');
    if (std::memcmp(page.data(), kZeros.data(), page.size()) == 0) continue;
    base::WriteExactly(fd.get(), page.data(), page.size(), offset);
  }
  fchmod(fd.get(), mode);
}

// Replaces the sandbox's upper, as if the guest had written to it, with a qcow2 file that has the
// same backing file and begins with content.
void WriteAsGuest(const SandboxHandle& sandbox, const std::string& content) {
  const fs::path upper = sandbox.Upper().path;
  std::string backing;
  for (const auto& entry : fs::directory_iterator(upper.parent_path())) {
    const std::string name = entry.path().filename();
    if (name.find(sandbox.Upper().base_digest.substr(7)) != std::string::npos) backing = name;
  }
  ASSERT_FALSE(backing.empty());
  WriteFile(upper, Qcow2Sample(content, backing, kDiskBytes));
}

}  // namespace

void Expect(const std::string& what, const std::function<void()>& code) {
  try {
    code();
  } catch (const Error& e) {
    ADD_FAILURE() << what << ": " << ErrorKindName(e.kind()) << ": " << e.what();
  } catch (const std::exception& e) {
    ADD_FAILURE() << what << ": " << e.what();
  }
}

FaultHome::FaultHome(const std::function<void(FaultHome&)>& prepare)
    : dir_(FastDirectory()), root_(dir_.path()) {
  Populate();
  MakeArchive();
  fs::create_directory(root_ / "out");
  if (prepare) prepare(*this);
  Remember();
}

Client FaultHome::NewClient(std::optional<DiskFormat> upper_format) {
  return Client({.home = root_ / "home",
                 .backend = "local",
                 .upper_format = upper_format,
                 .log = [this](std::string_view message) { log_.emplace_back(message); }});
}

void FaultHome::Populate() {
  const std::string written = Noise(8192, 3);
  std::string content(kDiskBytes, '\0');
  content.replace(0, 40'000, Noise(40'000, 1));
  content.replace(90'000, 5'000, Noise(5'000, 2));
  WriteSparsely(root_ / "base.img", content, 0644);

  // A digest is remembered only for an image that was not modified within the last second.
  fs::last_write_time(root_ / "base.img", fs::file_time_type::clock::now() - std::chrono::hours(1));

  Client raw = RawClient();
  CreateSandbox(ctx_, "raw", {WithImage(root_ / "base.img")}, raw).Close();
  const auto take = [&](Client& client, const std::string& sandbox, const std::string& name) {
    digests_[name] =
        Snapshot::Create(ctx_, sandbox, {.name = name, .record_integrity = true}, client).Digest();
  };
  take(raw, "raw", "old");
  CreateSandbox(ctx_, "child", {WithSnapshot("old")}, raw).Close();
  take(raw, "child", "young");
  take(raw, "raw", "spare");
  Client qcow2 = Qcow2Client();
  CreateSandbox(ctx_, "cow", {WithSnapshot("old")}, qcow2).Close();
  WriteAsGuest(GetSandbox(ctx_, "cow", qcow2), Noise(4096, 4));
  take(qcow2, "cow", "middle");
  WriteAsGuest(GetSandbox(ctx_, "cow", qcow2), written);
  CreateSandbox(ctx_, "busy", {WithSnapshot("old"), WithDetached()}, raw).Close();
  cow_content_ = content.replace(0, written.size(), written);
}

void FaultHome::MakeArchive() {
  Client client({.home = root_ / "donor", .backend = "local"});
  WriteSparsely(root_ / "donor.img", Noise(20'000, 5) + std::string(45'536, '\0'), 0644);
  CreateSandbox(ctx_, "donor", {WithImage(root_ / "donor.img")}, client).Close();
  for (const auto& [sandbox, name] : {std::pair("donor", "received"), {"next", "received-head"}}) {
    if (std::string_view(sandbox) == "next") {
      CreateSandbox(ctx_, "next", {WithSnapshot("received")}, client).Close();
    }
    digests_[name] =
        Snapshot::Create(ctx_, sandbox, {.name = name, .record_integrity = true}, client).Digest();
  }
  Snapshot::Export(ctx_, "received-head", root_ / "archive.tar.zst",
                   {.with_parents = true, .with_image = true, .threads = 1}, client);
  fs::remove_all(root_ / "donor");
  fs::remove(root_ / "donor.img");
}

void FaultHome::Remember() {
  std::map<ino_t, std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(root_)) {
    struct stat st {};
    if (lstat(entry.path().c_str(), &st) != 0) throw std::runtime_error("lstat");
    File file{.path = entry.path().lexically_relative(root_),
              .content = {},
              .first_name = {},
              .type = entry.symlink_status().type(),
              .mode = st.st_mode & 07777,
              .modified = st.st_mtim};
    if (file.type == fs::file_type::regular) {
      const auto [first, is_new] = names.emplace(st.st_ino, file.path);
      if (is_new) {
        file.content = ReadFile(entry.path());
      } else {
        file.first_name = first->second;
      }
    }
    files_.push_back(std::move(file));
  }
}

void FaultHome::Reset() {
  log_.clear();
  for (const auto& entry : fs::directory_iterator(root_)) fs::remove_all(entry.path());
  for (const File& file : files_) {
    const fs::path path = root_ / file.path;
    if (file.type == fs::file_type::directory) {
      fs::create_directory(path);
      continue;
    }
    if (!file.first_name.empty()) {
      fs::create_hard_link(root_ / file.first_name, path);
      continue;
    }
    WriteSparsely(path, file.content, file.mode);
    const std::array<timespec, 2> times = {file.modified, file.modified};
    utimensat(AT_FDCWD, path.c_str(), times.data(), 0);
  }
}

const std::string& FaultHome::Normalized(std::string content) {
  const auto [known, is_new] = normalized_.try_emplace(std::move(content));
  if (is_new) known->second = WithoutNumbers(known->first);
  return known->second;
}

std::string FaultHome::State() {
  std::vector<std::string> lines;
  for (const auto& entry : fs::recursive_directory_iterator(root_)) {
    struct stat st {};
    if (lstat(entry.path().c_str(), &st) != 0) continue;
    const std::string path = entry.path().lexically_relative(root_);
    std::string line = fmt::format("{} {:o}", WithoutNumbers(path), st.st_mode);
    if (S_ISREG(st.st_mode)) {
      line += fmt::format(" {} links", st.st_nlink);
      if (IsDatabase(path)) {
        line += fmt::format(" {} bytes", st.st_size);
      } else if (path.ends_with(".json")) {
        line += Normalized(ReadFile(entry.path()));
      } else {
        // The header of a qcow2 disk holds the name of its backing file, which contains a digest.
        const std::string content = ReadFile(entry.path());
        constexpr std::size_t kHeader = 1024;
        line += fmt::format(
            " {:x} {:x}", std::hash<std::string>()(Normalized(content.substr(0, kHeader))),
            std::hash<std::string_view>()(
                std::string_view(content).substr(std::min(kHeader, content.size()))));
      }
    }
    lines.push_back(std::move(line));
  }
  std::sort(lines.begin(), lines.end());
  return fmt::format("{}", fmt::join(lines, "\n"));
}

std::string FaultHome::Index() {
  Client client = NewClient();
  std::string rows;
  Expect("List", [&] {
    for (const SnapshotHandle& handle : Snapshot::List(ctx_, client)) {
      rows += fmt::format("{} {}\n", handle.Name().value_or("-"), WithoutNumbers(handle.Path()));
    }
  });
  return rows;
}

void FaultHome::ExpectEveryCallWorks(const Touched& touched, const std::function<void()>& again) {
  Client client = NewClient();
  Expect("the home", [&] {
    ExpectListedIsSound(client, touched);
    ExpectSandboxesWork(client, touched);
    Expect("the same call again", again);
    ExpectNewObjectsWork(client, touched);
    ExpectIndexIsRebuilt(client);
    ExpectNothingLeft();
  });
}

void FaultHome::ExpectListedIsSound(Client& client, const Touched& touched) {
  const auto is_touched = [&](const fs::path& path) {
    return touched.snapshots.contains(path.filename());
  };
  std::set<std::string> paths;
  for (const SnapshotArtifact& artifact : Snapshot::ListDir(ctx_, "", client)) {
    Expect("Verify " + artifact.Path(), [&] {
      try {
        std::ignore = artifact.Verify(ctx_);
      } catch (const Error& e) {
        // Its parent may have been removed by force.
        if (e.kind() != ErrorKind::kSnapshotNotFound || !is_touched(artifact.Path())) throw;
      }
    });
    paths.insert(artifact.Path());
  }
  for (const auto& entry : fs::directory_iterator(Snapshots())) {
    if (entry.path().filename().native().starts_with('.')) continue;
    EXPECT_TRUE(paths.contains(entry.path())) << entry.path() << " is not listed";
  }
  for (const SnapshotHandle& handle : Snapshot::List(ctx_, client)) {
    try {
      EXPECT_EQ(handle.Open(ctx_).Digest().size(), handle.Digest().size());
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kSnapshotNotFound) << e.what();
    }
  }
  for (const char* name : {"old", "young", "middle", "spare"}) {
    if (touched.snapshots.contains(name)) continue;
    Expect("Open " + std::string(name), [&] {
      EXPECT_EQ(Snapshot::Open(ctx_, name, client).Digest(), DigestOf(name));
      EXPECT_EQ(Snapshot::Get(ctx_, name, client).Digest(), DigestOf(name));
    });
  }
}

void FaultHome::ExpectSandboxesWork(Client& client, const Touched& touched) {
  std::set<std::string> names;
  for (const SandboxHandle& sandbox : ListSandboxes(ctx_, client)) {
    names.insert(sandbox.Name());
    Expect("sandbox " + sandbox.Name(), [&] {
      const bool runs = sandbox.Status() == SandboxStatus::kRunning;
      if (!touched.sandboxes.contains(sandbox.Name())) {
        EXPECT_EQ(runs, sandbox.Name() == "busy");
      }
      if (runs) sandbox.Stop(ctx_);
      StartSandbox(ctx_, sandbox.Name(), client).Close();
      const SandboxHandle now = GetSandbox(ctx_, sandbox.Name(), client);
      const fs::path upper = now.Upper().path;
      EXPECT_EQ(now.Status(), SandboxStatus::kStopped);
      EXPECT_EQ(fs::hard_link_count(upper), 1U) << upper;
      EXPECT_NE(fs::status(upper).permissions() & fs::perms::owner_write, fs::perms::none) << upper;
    });
  }
  for (const auto& entry : fs::directory_iterator(Sandboxes())) {
    const std::string name = entry.path().filename();
    if (name.starts_with('.')) continue;
    EXPECT_TRUE(names.contains(name)) << entry.path() << " is not listed";
  }
  for (const char* name : {"raw", "child", "cow", "busy"}) {
    if (!touched.sandboxes.contains(name)) {
      EXPECT_TRUE(names.contains(name)) << name;
    }
  }
}

void FaultHome::ExpectNewObjectsWork(Client& client, const Touched& touched) {
  const auto content_of = [&](const std::string& snapshot) {
    Snapshot::Flatten(ctx_, snapshot, root_ / "out/probe.img", {}, client);
    return ReadFile(root_ / "out/probe.img");
  };
  if (!touched.sandboxes.contains("raw")) {
    Expect("a snapshot of raw", [&] {
      Snapshot::Create(ctx_, "raw", {.name = "probe-raw", .record_integrity = true}, client);
      EXPECT_EQ(content_of("probe-raw"), ReadFile(root_ / "base.img"));
      Snapshot::Create(ctx_, "raw", {.name = "probe-raw", .force = true}, client);
    });
  }
  if (!touched.sandboxes.contains("cow")) {
    Expect("a snapshot of cow", [&] {
      Snapshot::Create(ctx_, "cow", {.name = "probe-cow", .record_integrity = true}, client);
      EXPECT_TRUE(content_of("probe-cow") == cow_content_) << "cow lost data";
      CreateSandbox(ctx_, "probe", {WithSnapshot("probe-cow")}, client).Close();
      CreateSandbox(ctx_, "probe", {WithSnapshot("probe-cow"), WithReplace()}, client).Close();
      Snapshot::Create(ctx_, "probe", {.name = "probe-grandchild"}, client);
      EXPECT_TRUE(content_of("probe-grandchild") == cow_content_) << "probe lost data";
      // An ancestor of "cow" may have been removed by force.
      const bool has_parents = !touched.snapshots.contains("middle");
      Snapshot::Export(ctx_, "probe-grandchild", root_ / "out/probe.tar",
                       {.with_parents = has_parents, .plain_tar = true, .threads = 1}, client);
      Snapshot::Import(ctx_, root_ / "out/probe.tar", root_ / "out/probe", client);
      for (const SnapshotArtifact& artifact :
           Snapshot::ListDir(ctx_, root_ / "out/probe", client)) {
        Snapshot::Remove(ctx_, artifact.Path(), true, client);
      }
      RemoveSandbox(ctx_, "probe", client);
      Snapshot::Remove(ctx_, "probe-grandchild", false, client);
    });
  }
  Expect("sandboxes from images", [&] {
    CreateSandbox(ctx_, "probe", {WithImage(root_ / "base.img")}, client).Close();
    WriteFile(root_ / "probe.img", Noise(8192, 6));
    CreateSandbox(ctx_, "probe", {WithImage(root_ / "probe.img"), WithReplace()}, client).Close();
    RemoveSandbox(ctx_, "probe", client);
  });
}

void FaultHome::ExpectIndexIsRebuilt(Client& client) {
  const std::size_t artifacts = Snapshot::ListDir(ctx_, "", client).size();
  EXPECT_EQ(Snapshot::Reindex(ctx_, "", client), artifacts);
  std::size_t rows = 0;
  for (const SnapshotHandle& handle : Snapshot::List(ctx_, client)) {
    if (fs::path(handle.Path()).parent_path() != Snapshots()) continue;
    ++rows;
    Expect("Open " + handle.Path(),
           [&] { EXPECT_EQ(handle.Open(ctx_).Digest(), handle.Digest()); });
  }
  EXPECT_EQ(rows, artifacts);
}

void FaultHome::ExpectNothingLeft() {
  for (auto at = fs::recursive_directory_iterator(root_); at != fs::end(at); ++at) {
    const std::string name = at->path().filename();
    if (name.starts_with(".msb-pull-")) {
      // An interrupted pull keeps its stage for the next one.
      at.disable_recursion_pending();
      continue;
    }
    EXPECT_FALSE(name.starts_with('.')) << at->path() << " is left";
  }
}

}  // namespace msb::test
