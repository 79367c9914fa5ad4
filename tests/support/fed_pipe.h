// SPDX-License-Identifier: Apache-2.0
//
// A pipe that is read by its path while a thread feeds it: a stream that cannot be rewound, and
// that may be endless or stall.

#ifndef MSB_TESTS_SUPPORT_FED_PIPE_H_
#define MSB_TESTS_SUPPORT_FED_PIPE_H_

#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include "src/base/file.h"

namespace msb::test {

class FedPipe {
 public:
  // Writes bytes to the pipe. Returns false once the read end is closed.
  using Write = std::function<bool(std::string_view bytes)>;

  // Runs feed in a thread. The stream ends when feed returns.
  explicit FedPipe(std::function<void(const Write& write)> feed);

  // Returns "/dev/fd/N".
  std::string path() const;

 private:
  std::jthread feeder_;
  base::UniqueFd reader_;  // Closed before the feeder is joined, which may wait for a reader.
};

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_FED_PIPE_H_
