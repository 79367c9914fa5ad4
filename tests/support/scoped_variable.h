// SPDX-License-Identifier: Apache-2.0
//
// Changes the environment of the process for a part of a test.

#ifndef MSB_TESTS_SUPPORT_SCOPED_VARIABLE_H_
#define MSB_TESTS_SUPPORT_SCOPED_VARIABLE_H_

#include <cstdlib>
#include <optional>
#include <string>

namespace msb::test {

// Sets an environment variable, and restores it at the end.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    setenv(name, value.c_str(), 1);
  }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;
  ~ScopedVariable() {
    if (old_) {
      setenv(name_, old_->c_str(), 1);
    } else {
      unsetenv(name_);
    }
  }

 private:
  const char* name_;
  std::optional<std::string> old_;
};

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_SCOPED_VARIABLE_H_
