// SPDX-License-Identifier: Apache-2.0
//
// A thread that places objects that do not belong to the library at names that the workers use: a
// user's directory or file, or a sandbox of a runtime. Each object is moved there in one step, when
// the name is free, and must stay there untouched until the thread itself moves it away.

#ifndef MSB_TESTS_SOAK_CHAOS_H_
#define MSB_TESTS_SOAK_CHAOS_H_

#include <sys/types.h>

#include <atomic>
#include <filesystem>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/soak/shared.h"

namespace msb::soak {

class Chaos {
 public:
  Chaos(const Places& places, const Shared& shared, std::uint64_t seed);

  // Checks all placed objects. Must be called only while no worker runs an operation.
  void Check();
  bool IsPlaced(const std::filesystem::path& path) const;
  // Moves all placed objects away and ends the thread.
  void Stop();
  int placed_in_all() const { return placed_in_all_; }

 private:
  struct Thing {
    std::filesystem::path at = {};
    ino_t inode = 0;
    int number = 0;
    bool is_file = false;
  };

  void Run(const std::stop_token& stop);
  void Place();
  void TakeAway(std::size_t index);
  // Replaces an image with a copy of itself, which must be hashed again when it is used next.
  void RenewImage();
  // Keeps other processes from writing to the index for a moment.
  void LockIndex() const;
  void CheckThing(const Thing& thing);
  Thing Make(int number);

  const Places places_;
  const Shared& shared_;
  std::mt19937_64 random_;
  mutable std::mutex mutex_;
  std::vector<Thing> things_;
  std::atomic<int> placed_in_all_ = 0;
  std::jthread thread_;
};

}  // namespace msb::soak

#endif  // MSB_TESTS_SOAK_CHAOS_H_
