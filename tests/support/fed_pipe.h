// A pipe with a path to read it by, which a thread feeds: a stream that cannot be rewound, and that
// may be endless or stall.

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
  // Writes bytes; false once nobody reads any more.
  using Write = std::function<bool(std::string_view bytes)>;

  // Runs feed in a thread; when it returns, the stream ends.
  explicit FedPipe(std::function<void(const Write& write)> feed);

  // "/dev/fd/N"
  std::string path() const;

 private:
  std::jthread feeder_;
  base::UniqueFd reader_;  // Closed before the feeder is joined, which may wait for a reader.
};

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_FED_PIPE_H_
