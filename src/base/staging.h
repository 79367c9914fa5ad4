// SPDX-License-Identifier: Apache-2.0
//
// Publishes, replaces and removes directories by one rename each, so that after a crash they are
// either complete or absent, and so that concurrent calls never lose anything.
//
// A stage is a hidden sibling of the destination, named ".msb-stage-DOMAIN-HEX", that holds the
// files that are being built or deleted. It is locked (flock) while a call uses it. SweepStages
// deletes stages whose lock is free, because those were left by interrupted calls. DOMAIN
// (LockDomain) identifies the processes that see the lock. A stage of another domain, such as that
// of another host on NFS, may be in use although its lock is free, so it is deleted only when it
// has not changed for kForeignStageAge. A directory is locked before it is replaced or hidden, is
// checked through its descriptor, and stays locked until its tree is deleted. The lock belongs to
// the open file description, so a directory must not be locked again through a second descriptor.
//
// A stage with a key, named ".msb-pull-DOMAIN-KEY", outlives the call that built it, even if its
// process is killed, so that the next call with the same key continues. SweepStages deletes it when
// its content has not changed for kKeptStageAge.

#ifndef MSB_SRC_BASE_STAGING_H_
#define MSB_SRC_BASE_STAGING_H_

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "msb/context.h"
#include "src/base/file.h"
#include "src/base/lock.h"
#include "src/base/new_directory.h"

namespace msb::base {

// A LockedDirectory represents a directory that is locked so that it can be replaced or removed, or
// with a shared lock, so that no other call replaces or removes it.
class LockedDirectory {
 public:
  LockedDirectory() = default;
  // Opens and locks the directory parent/name. Waits while another call has the directory locked,
  // and opens the name again if it leads to another directory afterwards. Returns an empty object
  // if name is absent, a symbolic link, or otherwise not a directory.
  // Throws kCancelled if ctx ends first.
  // Throws kIO if it cannot be opened.
  static LockedDirectory Open(const Context& ctx, const std::filesystem::path& parent,
                              const std::string& name, LockMode mode = LockMode::kExclusive);

  explicit operator bool() const { return static_cast<bool>(fd_); }
  int fd() const { return fd_.get(); }
  // Returns its current path.
  std::filesystem::path path() const;

  // Begins to remove the directory: renames it to a hidden name; the rename is on disk when this
  // returns. Throws kIO, with nothing changed, if the rename fails or the name no longer leads to
  // this directory.
  void Hide();
  // Undoes Hide. On failure, for example because the name is taken, returns false and leaves the
  // directory hidden.
  bool PutBack() noexcept;
  // Deletes the directory if it is hidden. Returns false if ctx ended first; SweepStages deletes
  // the rest.
  // Throws kIO if something cannot be deleted. The message names the hidden path.
  bool Delete(const Context& ctx);

 private:
  friend class Stage;

  std::filesystem::path parent_path_;
  std::string name_;
  std::string hidden_;  // Its current name, if it is hidden.
  UniqueFd parent_;
  LockedFd fd_;
};

// A Stage represents a hidden directory in which a directory or files are built until they are
// published.
class Stage {
 public:
  // Whether to create missing parent directories, which are removed again unless something is
  // published.
  enum class Parents { kMustExist, kMake };
  // Returns true if the locked directory dir may be replaced. Called before anything is changed.
  // path is for messages. May throw.
  using MayReplace = std::function<bool(int dir, const std::filesystem::path& path)>;

  // Creates an empty, locked stage in the directory parent. Throws kIO.
  explicit Stage(const std::filesystem::path& parent, Parents parents = Parents::kMustExist);
  // Opens the stage with this key, 64 lower-case hex digits, in the directory parent, and locks it.
  // Creates it if it is absent; otherwise it has what an earlier call left in it, which may be
  // anything. Waits while another call has it locked, so its content may have been published when
  // this returns. Parent directories that were created stay if the stage is kept.
  // Throws kCancelled if ctx ends first.
  // Throws kIO if it cannot be opened or created, or belongs to another user.
  Stage(const Context& ctx, const std::filesystem::path& parent, const std::string& key,
        Parents parents);
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;
  // Deletes the stage unless it was published, and deletes the directory that it replaced, if any.
  // Leaves files that cannot be deleted to SweepStages. Keeps a stage with a key, unless it is
  // empty or Discard was called.
  ~Stage();

  // Makes the destructor delete a stage with a key.
  void Discard() { is_kept_ = false; }

  int fd() const { return fd_.get(); }
  int parent_fd() const { return parent_.get(); }
  // Returns the path at which the stage was created. Once the stage is published, this path is
  // absent.
  const std::filesystem::path& path() const { return path_; }

  // Flushes the directory of the stage and renames it to parent/name. The caller must have flushed
  // the files and subdirectories. Returns false, with nothing changed, if parent/name exists. The
  // published directory stays locked as long as this object lives.
  // Throws kIO, with nothing changed, if it cannot be renamed or flushed.
  bool Publish(const std::string& name);
  // Works like Publish, but atomically replaces a directory that exists at parent/name. Waits while
  // another call has that directory locked. Returns false, with nothing changed, if may_replace
  // returns false for it, or if parent/name is not a directory. Throws kCancelled if ctx ends while
  // it waits. If ctx ends later, the call succeeds, but a large tree that was replaced is left to
  // SweepStages.
  bool PublishOver(const Context& ctx, const std::string& name, const MayReplace& may_replace);
  // Undoes Publish or PublishOver, and puts back the directory that was replaced. Returns false,
  // with nothing changed, if the published directory is no longer there or cannot be renamed.
  bool Withdraw() noexcept;

  // Moves an entry of the stage to parent/target. Returns false, with nothing changed, if the
  // target exists. This cannot be undone, because other calls may use the entry immediately: the
  // caller must have flushed it, and must flush the parent afterwards. Throws kIO, with nothing
  // changed, if the entry cannot be moved.
  bool PublishEntry(const std::string& name, const std::string& target);

  // Moves a regular file of the stage to parent/target, replacing a regular file that exists there.
  // Throws kInvalidArgument, with nothing changed, if parent/target is anything else.
  // Throws kIO if the file cannot be moved, or the directory cannot be flushed. Nothing is changed
  // then, with one exception: on a file system without hard links, the old file cannot be kept, so
  // if the flush fails, the new file stays, and the message says so.
  void PublishFile(const std::string& name, const std::string& target);

 private:
  // Creates and locks the stage. Returns false if the caller must try again, because another
  // process removed the parent directory, or removed or locked the stage.
  bool Make(const std::filesystem::path& parent);
  // Opens or creates a stage with a key. Returns false if the caller must try again, because
  // another process removed the parent directory or the stage. Sets created if it was created.
  bool Reopen(const Context& ctx, const std::filesystem::path& parent, const std::string& key,
              bool& created);
  // Exchanges the stage and parent/name.
  bool Exchange(const std::string& name);
  bool Replace(LockedDirectory old, const std::string& name);
  void SyncPublished();

  // Destroyed last: removes the parent directories that were created, if they are empty then.
  std::optional<NewDirectory> made_;
  UniqueFd parent_;
  std::filesystem::path path_;
  LockedFd fd_;
  std::string published_;  // Name of the published directory; empty: not published.
  bool is_kept_ = false;   // It has a key, and was not discarded.
  LockedDirectory replaced_;
  Context context_ = Context::Background();  // For deleting replaced_.
};

// How long a stage must be unchanged before a process that cannot see its lock deletes it.
inline constexpr std::chrono::hours kForeignStageAge{24};
// How long the content of a stage with a key must be unchanged before it is deleted.
inline constexpr std::chrono::hours kKeptStageAge{24};
// How long a directory that was moved aside (rename.h) must be unchanged before such a process puts
// it back in its place.
inline constexpr std::chrono::minutes kForeignAsideAge{1};

// Deletes the stages in the directory dir that interrupted calls have left, except recent ones with
// a key, and puts back directories that these calls had moved aside. Stops early when ctx is done,
// or when a quarter of the time that was left until its deadline has passed. Never throws, and
// never waits for a lock. Logs the stages that cannot be deleted. The caller must not hold a lock
// if there is a log.
void SweepStages(const Context& ctx, const std::filesystem::path& dir,
                 const std::function<void(std::string_view message)>& log);

// Replaces the file dir/name, or creates it, as ReplaceFileAt does, but writes the new file in a
// stage, which the next call removes if a crash left it. Throws kIO.
void ReplaceFileInStage(const std::filesystem::path& dir, const std::string& name,
                        std::string_view content, mode_t mode);

// Checks a path again that was found absent. Where directories cannot be exchanged in one step
// (rename.h), a path may be absent only for a moment, while a call replaces it, or because an
// interrupted call has moved its directory aside. Waits in the first case, for at most a second,
// and puts the directory back in the second case. Returns true if path exists now. Never throws.
bool AwaitExchange(const std::filesystem::path& path) noexcept;

}  // namespace msb::base

#endif  // MSB_SRC_BASE_STAGING_H_
