// SPDX-License-Identifier: Apache-2.0
//
// How do I send a snapshot to another process or machine, without a file in between?
//
//   pipe send HOME SNAPSHOT | ssh HOST pipe receive HOME
//   pipe                        does this with two temporary homes, without ssh

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "msb/msb.h"
#include "temporary_home.h"

namespace {

const auto ctx = msb::Context::Background();

msb::Client ClientFor(const std::string& home) {
  return msb::Client({.home = home, .backend = "local"});
}

// If the receiver closes the pipe, Export throws kIO.
void Send(const std::string& home, const std::string& snapshot) {
  msb::Snapshot::Export(ctx, snapshot, "/dev/stdout", {.with_image = true}, ClientFor(home));
}

// Import publishes nothing before it has checked the complete archive, so it refuses one that the
// sender has cut short.
void Receive(const std::string& home) {
  const auto handle = msb::Snapshot::Import(ctx, "/dev/stdin", "", ClientFor(home));
  std::cout << "received " << handle.Digest() << "\n";
}

void Demonstrate() {
  const example::TemporaryHome home;
  const std::string from = home.Path() + "/from";
  const std::string to = home.Path() + "/to";
  msb::CreateSandbox(ctx, "baseline", {msb::WithImage(home.MakeImage())}, ClientFor(from)).Close();
  const auto sent = msb::Snapshot::Create(ctx, "baseline", {.name = "deps"}, ClientFor(from));
  std::cout << "sending  " << sent.Digest() << std::endl;

  const std::string self = "'" + std::filesystem::read_symlink("/proc/self/exe").string() + "'";
  const std::string command =
      self + " send '" + from + "' deps | " + self + " receive '" + to + "'";
  if (std::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
  std::cout << (msb::Snapshot::Get(ctx, sent.Digest(), ClientFor(to)).Digest() == sent.Digest()
                    ? "both homes have it\n"
                    : "the homes differ\n");
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  try {
    if (words.empty()) {
      Demonstrate();
    } else if (words[0] == "send" && words.size() == 3) {
      Send(words[1], words[2]);
    } else if (words[0] == "receive" && words.size() == 2) {
      Receive(words[1]);
    } else {
      std::cerr << "usage: pipe [send HOME SNAPSHOT | receive HOME]\n";
      return 2;
    }
    return 0;
  } catch (const msb::Error& e) {
    std::cerr << "pipe: " << msb::ErrorKindName(e.kind()) << ": " << e.what() << "\n";
  } catch (const std::exception& e) {
    std::cerr << "pipe: " << e.what() << "\n";
  }
  return 1;
}
