// Throwing an msb::Error with a formatted message.

#ifndef MSB_SRC_BASE_THROW_H_
#define MSB_SRC_BASE_THROW_H_

#include <fmt/core.h>

#include <cerrno>
#include <string>
#include <string_view>
#include <utility>

#include "msb/error.h"

namespace msb::base {

template <typename... Args>
[[noreturn]] void Throw(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

// Throws kIO: "cannot ACTION PATH: REASON".
[[noreturn]] void ThrowErrno(std::string_view action, std::string_view path, int error = errno);

}  // namespace msb::base

#endif  // MSB_SRC_BASE_THROW_H_
