// SPDX-License-Identifier: Apache-2.0
//
// Defines the state of a client: its settings, its backend and its catalog of snapshots.

#ifndef MSB_SRC_OPS_CLIENT_STATE_H_
#define MSB_SRC_OPS_CLIENT_STATE_H_

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "msb/client.h"
#include "src/base/home.h"
#include "src/handle/catalog.h"

namespace msb::internal {

struct ClientState {
  explicit ClientState(Config given);

  static std::shared_ptr<ClientState> Of(const Client& client) { return client.state_; }

  void Log(std::string_view message) const { config.log(message); }
  // Sweeps the directory that contains the destination of a call (base::SweepStages).
  void SweepBeside(const Context& ctx, const std::filesystem::path& destination) const;
  // Returns the absolute path of dir, or the snapshots directory if dir is empty.
  std::filesystem::path DirectoryOrDefault(const std::filesystem::path& dir) const;

  Config config;  // With the paths of home.
  base::Home home;
  std::shared_ptr<vmm::Backend> backend;
  handle::Catalog catalog;
};

}  // namespace msb::internal

namespace msb::ops {
using internal::ClientState;
}  // namespace msb::ops

#endif  // MSB_SRC_OPS_CLIENT_STATE_H_
