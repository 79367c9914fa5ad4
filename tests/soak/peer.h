// SPDX-License-Identifier: Apache-2.0
//
// A released runtime, 0.6.7 or later, that works on the same home, one command after the other.

#ifndef MSB_TESTS_SOAK_PEER_H_
#define MSB_TESTS_SOAK_PEER_H_

#include <atomic>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>
#include <stop_token>
#include <string>
#include <thread>

#include "tests/soak/shared.h"

namespace msb::soak {

class Peer {
 public:
  // program is the runtime's executable, "…/msb-VERSION".
  Peer(std::filesystem::path program, const Places& places, Shared& shared, std::uint64_t seed);

  // Returns true while no command runs.
  bool idle() const { return idle_.load(); }
  void Stop();
  // Returns how often each command succeeded and failed.
  std::map<std::string, int> Counts() const;

 private:
  void Run(const std::stop_token& stop);
  void Step();
  void Command(const std::string& kind, const std::string& name, const std::string& arguments);
  void Load(const std::string& archive);
  bool WasTouched(const std::string& name, std::uint64_t since) const;

  const std::filesystem::path program_;
  const Places places_;
  Shared& shared_;
  const bool grouped_;  // Release 0.7 takes a bare name for that of a group.
  std::mt19937_64 random_;
  std::atomic<bool> idle_ = true;
  mutable std::mutex mutex_;
  std::map<std::string, int> counts_;
  std::jthread thread_;
};

}  // namespace msb::soak

#endif  // MSB_TESTS_SOAK_PEER_H_
