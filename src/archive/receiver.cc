// SPDX-License-Identifier: Apache-2.0

#include "src/archive/receiver.h"

#include <memory>
#include <span>
#include <utility>

#include "src/archive/entry_stream.h"
#include "src/archive/member_hash.h"
#include "src/archive/source_words.h"
#include "src/archive/sparse_map.h"
#include "src/artifact/integrity.h"
#include "src/base/digest.h"
#include "src/base/file.h"
#include "src/base/progress.h"
#include "src/base/space.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/sparse_copy.h"

namespace msb::archive {
namespace {

using base::Throw;
using base::UniqueFd;

// Returns the space that the member needs: the bytes of a sparse entry. Blocks of zeros in another
// entry become holes, so its size is an upper bound.
base::SpaceNeed NeedOf(const TarEntry& entry) {
  if (!entry.is_sparse) return {base::SpaceNeed::Bound::kAtMost, entry.size};
  base::SpaceNeed need;
  for (const disk::Extent& range : entry.ranges) need.bytes += range.length;
  return need;
}

MemberHasher HasherFor(const TarEntry& entry, MemberKind kind) {
  return {KindName(kind), entry.path, entry.stored, entry.size, entry.ranges};
}

}  // namespace

void RefuseExcess(std::string_view path, std::string_view problem) {
  Throw(ErrorKind::kSnapshotIntegrity,
        "archive entry '{}' {}; import the archive with the program that wrote it",
        base::Quoted(path), problem);
}

void RefuseEntry(std::string_view path, std::string_view problem) {
  RefusePart(ArchiveWords(), path, problem);
}

MemberReceiver::MemberReceiver(const Context& ctx, TarReader& reader, const LayoutGuess& layout,
                               std::filesystem::path destination)
    : ctx_(ctx), reader_(reader), layout_(layout), destination_(std::move(destination)) {}

void MemberReceiver::CheckInMemory(const TarEntry& entry, std::size_t limit) {
  if (!entry.is_sparse && entry.size <= limit) return;
  RefuseExcess(entry.path, "is longer than " + std::to_string(limit) + " bytes");
}

Member MemberReceiver::Describe(const TarEntry& entry, MemberKind kind) const {
  return {.path = entry.path,
          .kind = kind,
          .encoded_size = entry.stored,
          .apparent_size = entry.size,
          .ranges = entry.ranges};
}

std::string MemberReceiver::ReadText(const TarEntry& entry, MemberKind kind, std::size_t limit,
                                     Member* member) {
  CheckInMemory(entry, limit);
  std::string text;
  while (const auto piece = reader_.Read()) {
    text.append(reinterpret_cast<const char*>(piece->bytes.data()), piece->bytes.size());
  }
  if (member != nullptr) {
    *member = Describe(entry, kind);
    member->integrity = {std::string(artifact::kSha256), base::Sha256Digest(text)};
    MemberHasher hasher = HasherFor(entry, kind);
    hasher.Update(std::as_bytes(std::span(text)));
    member->transport_digest = hasher.Finish();
  }
  return text;
}

Member MemberReceiver::ReceiveFile(const TarEntry& entry, MemberKind kind,
                                   const std::optional<std::filesystem::path>& target,
                                   const std::optional<std::string>& algorithm,
                                   std::optional<std::uint64_t> free) {
  CountRanges(entry);
  if (target && free) CheckSpace(entry, *free);
  Member member = Describe(entry, kind);
  std::unique_ptr<artifact::IntegrityHasher> integrity;
  if (algorithm) integrity = artifact::MakeIntegrityHasher(ctx_, *algorithm, entry.size);
  MemberHasher hasher = HasherFor(entry, kind);
  const bool hashed = layout_.Get() != Layout::kLegacy;
  disk::RegionConsumer nothing;
  disk::RegionConsumer& content = integrity ? integrity->consumer() : nothing;
  EntryStream stream(reader_, entry.is_sparse, hashed ? &hasher : nullptr);
  base::ProgressMeter written(ctx_, "import", 0);
  if (target) {
    const UniqueFd dir = base::MakeDirectory(target->parent_path());
    const UniqueFd fd = base::CreateFileAt(dir.get(), target->filename(), 0666);
    base::ReportingSpace(
        fd.get(), [&] { return NeedOf(entry); },
        [&] {
          base::Resize(fd.get(), entry.size);
          disk::RegionWriter writer(fd.get(), content);
          disk::ScanStream(stream, entry.size, written, writer);
          // Image files are flushed when they are installed.
          if (kind == MemberKind::kPayload) base::Sync(fd.get());
        });
  } else {
    disk::ScanStream(stream, entry.size, written, content);
  }
  if (integrity) member.integrity = {*algorithm, integrity->Finish()};
  if (hashed) member.transport_digest = hasher.Finish();
  if (!layout_.MayBe(Layout::kLayered)) member.ranges = {};
  return member;
}

void MemberReceiver::CountRanges(const TarEntry& entry) {
  // The ranges of all entries are kept if an inventory may list them.
  if (layout_.MayBe(Layout::kLayered)) ranges_ += entry.ranges.size();
  if (ranges_ > kMaxSparseRanges) {
    RefuseExcess(entry.path, "exceeds the limit of " + std::to_string(kMaxSparseRanges) +
                                 " sparse ranges in one archive");
  }
}

void MemberReceiver::CheckSpace(const TarEntry& entry, std::uint64_t free) const {
  const base::SpaceNeed need = NeedOf(entry);
  if (need.bytes <= free) return;
  Throw(ErrorKind::kIO,
        "archive entry '{}' needs {} bytes, but only {} bytes are free in {}; free {} bytes there, "
        "or import to a directory on another file system",
        base::Quoted(entry.path), need.bytes, free, destination_.native(), need.bytes - free);
}

}  // namespace msb::archive
