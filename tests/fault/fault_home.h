// SPDX-License-Identifier: Apache-2.0
//
// A small home on which an operation is tried again and again. It is made once, restored before
// each try, and checked after it.

#ifndef MSB_TESTS_FAULT_FAULT_HOME_H_
#define MSB_TESTS_FAULT_FAULT_HOME_H_

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "tests/support/support.h"

namespace msb::test {

// Everything is in one directory:
//   base.img           a raw image
//   archive.tar.zst    "received" <- "received-head" of another home, with their image
//   out/               where operations write files and artifacts
//   home/              sandboxes "raw" (from base.img), "child" (raw, from "old"), "cow" (qcow2,
//                      from "old"; the guest has written since "middle" was taken) and "busy"
//                      (runs); snapshots "old" <- "young", "old" <- "middle" (qcow2), and "spare"
class FaultHome {
 public:
  // Calls prepare to add the other objects that an operation needs.
  explicit FaultHome(const std::function<void(FaultHome&)>& prepare);

  // Restores all files as they were after construction, and clears the log.
  void Reset();

  // Returns a client whose new sandboxes have disks of this format. Its warnings go to log().
  Client NewClient(std::optional<DiskFormat> upper_format = std::nullopt);
  Client RawClient() { return NewClient(DiskFormat::kRaw); }
  Client Qcow2Client() { return NewClient(DiskFormat::kQcow2); }

  std::filesystem::path operator/(std::string_view name) const { return root_ / name; }
  std::filesystem::path Snapshots() const { return root_ / "home" / "snapshots"; }
  std::filesystem::path Sandboxes() const { return root_ / "home" / "sandboxes"; }

  // Describes all files, except for times, random names and the contents of databases. Equal states
  // need to be checked only once.
  std::string State();
  // Describes the rows of the index in the same way.
  std::string Index();

  // The digest that a snapshot had when the home was made.
  const std::string& DigestOf(const std::string& name) const { return digests_.at(name); }
  // The content of the disk of "cow" as its guest sees it.
  const std::string& CowContent() const { return cow_content_; }

  // The snapshots and sandboxes that the operation may have removed or replaced.
  struct Touched {
    std::set<std::string> snapshots = {};
    std::set<std::string> sandboxes = {};
  };
  // Expects the home to be sound and every call to work on it. again repeats the operation. Leaves
  // the home changed.
  void ExpectEveryCallWorks(const Touched& touched, const std::function<void()>& again);

  std::vector<std::string>& log() { return log_; }

 private:
  struct File {
    std::filesystem::path path;  // Relative to the root.
    std::string content;         // Content of a regular file.
    std::string first_name;      // Set for a hard link: the first name of the file, which has the
                                 // content.
    std::filesystem::file_type type;
    unsigned mode = 0;
    timespec modified = {};
  };

  void Populate();
  // Returns the content of a file without numbers, which differ each time. Remembers them all,
  // because most files are the same in most states.
  const std::string& Normalized(std::string content);
  void MakeArchive();
  void Remember();
  void ExpectListedIsSound(Client& client, const Touched& touched);
  void ExpectSandboxesWork(Client& client, const Touched& touched);
  void ExpectNewObjectsWork(Client& client, const Touched& touched);
  void ExpectIndexIsRebuilt(Client& client);
  void ExpectNothingLeft();

  const Context ctx_ = Context::Background();
  TempDir dir_;
  const std::filesystem::path root_;
  std::vector<File> files_;
  std::map<std::string, std::string> digests_;
  std::string cow_content_;
  std::vector<std::string> log_;
  std::unordered_map<std::string, std::string> normalized_;
};

// Calls code. If it throws, reports a test failure with the description what.
void Expect(const std::string& what, const std::function<void()>& code);

}  // namespace msb::test

#endif  // MSB_TESTS_FAULT_FAULT_HOME_H_
