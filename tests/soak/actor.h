// SPDX-License-Identifier: Apache-2.0
//
// One thread of a worker, which runs random operations.

#ifndef MSB_TESTS_SOAK_ACTOR_H_
#define MSB_TESTS_SOAK_ACTOR_H_

#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "msb/msb.h"
#include "tests/soak/content.h"
#include "tests/soak/shared.h"
#include "tests/soak/worker.h"

namespace msb::soak {

class Actor {
 public:
  Actor(Worker& worker, int thread, std::uint64_t seed);

  void Run();

 private:
  struct Attempted {
    Op op = Op::kOpen;
    std::string name = {};    // Object it makes or removes; "@NAME" if outside the snapshots
                              // directory.
    std::string digest = {};  // Digest of the snapshot to remove.
    std::uint64_t id = 0;
    bool forced = false;
  };
  // Makes a call with a random Context and records its outcome. The call returns the digest of the
  // snapshot that it made or opened, or an empty string.
  Outcome Attempt(const Attempted& what, const std::function<std::string(const Context&)>& call);
  // Reports a finding about the current operation of the thread.
  void Report(const std::string& what);
  // Starts the record of an operation. Returns null if such operations are not recorded, or if the
  // journal is full.
  Record* Begin(const Attempted& what);
  Outcome Failed(const Attempted& what, ErrorKind kind, const char* message, bool bounded);

  void Step();
  void Pause();

  // Snapshots.
  void Create();
  void CreateOf(const std::string& sandbox, const std::string& state);
  void Squash();
  void Open();
  void Get();
  void List();
  void ListDir();
  void Verify();
  void Export();
  void Import();
  void ImportElsewhere(const std::string& archive);
  static void RemoveAtOnce(const std::filesystem::path& directory);
  void Remove();
  void Reindex();
  void Usage();
  void Flatten();

  // Sandboxes.
  void MakeSandbox();
  void MakeOwn(OwnSandbox& own);
  void ReadOwn(OwnSandbox& own);
  std::optional<Sandbox> TryMakeSandbox(const std::string& name, bool detached);
  void LookAtSandbox();
  void ListAllSandboxes();
  void Start();
  void Stop();
  void Kill();
  void Restore();
  void DropSandbox();
  void Write();
  void WriteOwn(OwnSandbox& own);
  void Hold(Sandbox sandbox);
  void Close(Sandbox sandbox);

  // Returns true with this probability.
  bool Chance(double probability);
  int Pick(int count);
  std::string SnapshotName();
  // Returns a name, or sometimes a path, which may lead to an artifact outside the snapshots
  // directory.
  std::string SnapshotKey();
  std::string SandboxName();
  // Returns the worker's own sandbox of that name, or null for a shared one. The caller must lock
  // it.
  OwnSandbox* OwnOf(const std::string& name);
  std::shared_lock<std::shared_mutex> Share(const std::string& name);
  Client& AnyClient();
  std::filesystem::path Scratch(const std::string& suffix) const;
  std::map<std::string, std::string> Labels(std::uint64_t id, const std::string& state,
                                            bool integrity) const;
  // Expects the content of the disk to be consistent, and to match the label of artifact if that is
  // set.
  void CheckDisk(const std::filesystem::path& disk, DiskFormat format,
                 const std::optional<SnapshotArtifact>& artifact);

  Worker& worker_;
  Shared& shared_;
  Slot& slot_;
  const int thread_;
  std::mt19937_64 random_;
  std::list<Sandbox> held_;
};

}  // namespace msb::soak

#endif  // MSB_TESTS_SOAK_ACTOR_H_
