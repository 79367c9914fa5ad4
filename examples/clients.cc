// SPDX-License-Identifier: Apache-2.0
//
// How do I use a home from several threads, with one client or with several? Without any locks of
// your own: clients, threads and processes may share a home.

#include <array>
#include <atomic>
#include <cstddef>
#include <exception>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "msb/msb.h"
#include "temporary_home.h"

namespace {

constexpr int kThreads = 4;

// Creates a snapshot. Returns false if another call has taken the name.
bool TryCreate(const std::string& name, const msb::Client& client) {
  try {
    msb::Snapshot::Create(msb::Context::Background(), "baseline", {.name = name}, client);
    return true;
  } catch (const msb::Error& e) {
    if (e.kind() != msb::ErrorKind::kSnapshotAlreadyExists) throw;
    return false;
  }
}

void Run() {
  const example::TemporaryHome home;
  const auto ctx = msb::Context::Background();
  const msb::Config config{.home = home.Path(), .backend = "local"};
  const msb::Client one(config);
  const msb::Client other(config);  // As in another program. A copy of one would share its state.
  msb::CreateSandbox(ctx, "baseline", {msb::WithImage(home.MakeImage())}, one).Close();

  std::atomic<int> created = 0;
  std::atomic<int> taken = 0;
  std::array<std::exception_ptr, kThreads> errors;
  {
    std::vector<std::jthread> threads;
    threads.reserve(kThreads);
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        const msb::Client& client = i % 2 == 0 ? one : other;
        try {
          TryCreate("of-thread-" + std::to_string(i), client);
          // If several calls use the same name, one creates the snapshot, and the others fail.
          ++(TryCreate("of-one-thread", client) ? created : taken);
        } catch (...) {  // An exception must not leave the thread.
          errors.at(static_cast<std::size_t>(i)) = std::current_exception();
        }
      });
    }
  }  // Waits for the threads.
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
  std::cout << "'of-one-thread': created by " << created << ", taken for " << taken << "\n";
  std::cout << msb::Snapshot::List(ctx, one).size() << " snapshots for one client, "
            << msb::Snapshot::List(ctx, other).size() << " for the other\n";
}

}  // namespace

int main(int argc, char** /*argv*/) {
  if (argc != 1) {
    std::cerr << "usage: clients\n";
    return 2;
  }
  try {
    Run();
    return 0;
  } catch (const msb::Error& e) {
    std::cerr << "clients: " << msb::ErrorKindName(e.kind()) << ": " << e.what() << "\n";
  } catch (const std::exception& e) {
    std::cerr << "clients: " << e.what() << "\n";
  }
  return 1;
}
