// SPDX-License-Identifier: Apache-2.0

#include "msb/client.h"

#include <cstdlib>
#include <utility>

#include "src/base/fork.h"
#include "src/ops/client_state.h"

namespace msb {
namespace {

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

}  // namespace

Config Config::FromEnvironment() {
  return {.home = Environment("MSB_HOME"), .backend = Environment("MSB_BACKEND")};
}

Client::Client(Config config)
    : state_(std::make_shared<internal::ClientState>(std::move(config))) {}

Client& Client::Default() {
  static constinit base::Lazy<Client> client;
  return client.Get();
}

const Config& Client::config() const { return state_->config; }
std::shared_ptr<vmm::Backend> Client::backend() const { return state_->backend; }

}  // namespace msb
