// A directory that is built aside and published in one rename, so that after a crash it is there
// whole or not at all.
//
// A stage is a hidden sibling of its destination, ".msb-stage-…", locked (flock) by the process
// that builds it. One that nobody has locked was left by a crash; whoever makes the next stage in
// that directory removes it, if he may.

#ifndef MSB_SRC_BASE_STAGING_H_
#define MSB_SRC_BASE_STAGING_H_

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "msb/context.h"
#include "src/base/file.h"

namespace msb::base {

// Takes an exclusive advisory lock on an open file or directory, released when fd is closed.
// False if another process or descriptor has it.
bool TryLock(int fd);
// Waits for the lock. kCancelled.
void Lock(const Context& ctx, int fd);

class Stage {
 public:
  // Makes an empty stage in the existing directory parent.
  explicit Stage(const std::filesystem::path& parent);
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;
  // Removes what was not published.
  ~Stage();

  int fd() const { return fd_.get(); }
  const std::filesystem::path& path() const { return path_; }

  // Flushes the stage and renames it to parent/name; false, with nothing changed, if that exists.
  bool Publish(const std::string& name);
  // As Publish, but in place of what is there, which is removed after; false, with nothing changed,
  // if may_replace refuses that. It is asked when the two have changed places, so that what it sees
  // is what is removed; it must not throw.
  bool PublishOver(const std::string& name,
                   const std::function<bool(const std::filesystem::path& old)>& may_replace);
  // Moves these entries of the stage, in this order, to the parent, under the same names: all or
  // none, but for a crash, after which the first of them may be there. Returns the first name that
  // is taken, with nothing changed; nothing if all is done.
  std::optional<std::string> PublishEntries(const std::vector<std::string>& names);
  // Takes what PublishEntries moved back into the stage.
  void TakeBack(const std::vector<std::string>& names) noexcept;
  // Moves one file out of the stage to parent/target, over a file that may be there.
  // kInvalidArgument, with nothing changed: what is there is no regular file.
  void PublishFile(const std::string& name, const std::string& target);

 private:
  bool Rename(const std::string& name, unsigned flags);
  // Undoes the renaming of an entry with these flags; false if that cannot be.
  bool PutBack(const std::string& name, const std::string& target, unsigned flags);
  // Flushes the renaming, or takes it back.
  void SyncRenamed(const std::string& name, unsigned flags);

  UniqueFd parent_;
  std::filesystem::path path_;
  UniqueFd fd_;
  bool discard_ = true;
};

// Begins to remove the directory parent/name: renames it to a hidden name, so that after a crash it
// is there whole or not at all. Returns where it is now, for RemoveTree; nothing if there is none.
std::optional<std::filesystem::path> HideDurably(const std::filesystem::path& parent,
                                                 const std::string& name);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_STAGING_H_
