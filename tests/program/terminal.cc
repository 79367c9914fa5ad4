// SPDX-License-Identifier: Apache-2.0

#include "tests/program/terminal.h"

#include <poll.h>
#include <pty.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <stdexcept>
#include <utility>

namespace msb::test {
namespace {

constexpr int kPatienceMs = 120'000;

// The lines of a terminal, and its cursor.
class Screen {
 public:
  explicit Screen(std::string_view output) {
    while (!output.empty()) output.remove_prefix(Consume(output));
  }

  std::vector<std::string> Lines() const {
    std::vector<std::string> lines;
    for (const auto& line : lines_) {
      std::string text;
      for (const std::string& character : line) text += character;
      text.erase(text.find_last_not_of(' ') + 1);
      lines.push_back(text);
    }
    while (!lines.empty() && lines.back().empty()) lines.pop_back();
    return lines;
  }

  std::size_t width() const { return width_; }

 private:
  // Handles the first character or escape sequence. Returns its length.
  std::size_t Consume(std::string_view output) {
    switch (output[0]) {
      case '\r':
        column_ = 0;
        return 1;
      case '\n':
        lines_.emplace_back();
        return 1;
      case '\x1b':
        return ConsumeSequence(output);
      default:
        return ConsumeCharacter(output);
    }
  }

  std::size_t ConsumeSequence(std::string_view output) {
    const std::size_t end = output.find_first_of("Km", 1);
    if (!output.starts_with("\x1b[") || end == std::string_view::npos) {
      throw std::runtime_error("an unexpected escape sequence");
    }
    if (output[end] == 'K') lines_.back().resize(std::min(column_, lines_.back().size()));
    return end + 1;
  }

  std::size_t ConsumeCharacter(std::string_view output) {
    std::size_t length = 1;
    while (length < output.size() && (output[length] & '\xc0') == '\x80') ++length;
    auto& line = lines_.back();
    if (line.size() <= column_) line.resize(column_ + 1, " ");
    line[column_++] = output.substr(0, length);
    width_ = std::max(width_, column_);
    return length;
  }

  std::vector<std::vector<std::string>> lines_ = {{}};
  std::size_t column_ = 0;
  std::size_t width_ = 0;
};

}  // namespace

Terminal::Terminal(std::size_t columns, const std::vector<std::string>& arguments,
                   const ProcessOptions& options) {
  const winsize size{
      .ws_row = 24, .ws_col = static_cast<unsigned short>(columns), .ws_xpixel = 0, .ws_ypixel = 0};
  int master = -1;
  pid_ = forkpty(&master, nullptr, nullptr, &size);
  if (pid_ < 0) throw std::runtime_error("cannot open a pseudo-terminal");
  if (pid_ == 0) {
    Execute(arguments, options);
    _exit(127);
  }
  master_ = base::UniqueFd(master);
}

Terminal::~Terminal() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  WaitForProcess(pid_);
}

bool Terminal::Read() {
  pollfd polled{master_.get(), POLLIN, 0};
  if (poll(&polled, 1, kPatienceMs) <= 0) return false;
  std::array<char, 4096> buffer;
  // Reading fails with EIO once the program has closed the terminal.
  const ssize_t count = read(master_.get(), buffer.data(), buffer.size());
  if (count <= 0) return false;
  output_.append(buffer.data(), static_cast<std::size_t>(count));
  return true;
}

bool Terminal::Shows(std::string_view text) {
  while (output_.find(text) == std::string::npos) {
    if (!Read()) return false;
  }
  return true;
}

void Terminal::Type(std::string_view keys) {
  if (write(master_.get(), keys.data(), keys.size()) != static_cast<ssize_t>(keys.size())) {
    throw std::runtime_error("cannot type");
  }
}

int Terminal::Wait() {
  while (Read()) {
  }
  return WaitForProcess(std::exchange(pid_, -1));
}

std::vector<std::string> ScreenAfter(std::string_view output) { return Screen(output).Lines(); }

std::size_t WidthOf(std::string_view output) { return Screen(output).width(); }

}  // namespace msb::test
