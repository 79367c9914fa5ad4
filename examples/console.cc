// SPDX-License-Identifier: Apache-2.0
//
// How do I read what a guest writes to its console? On the qemu backend, from a file.
//
//   console                               boots a disk with a boot sector that says hello
//   console DISK                          boots a disk image
//   console KERNEL INITRD [PARAMETERS]    boots a kernel, with these parameters
//
// Prints the console until the guest powers off, and ends the guest after two minutes.

#include <chrono>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "msb/msb.h"
#include "temporary_home.h"

namespace {

// Writes a boot sector that writes a line to the serial port and powers off.
void MakeBootable(const std::string& disk) {
  using std::string_view_literals::operator""sv;
  const auto code =
      "\xfa\x31\xc0\x8e\xd8\xbe\x1d\x7c"  //    cli; xor %ax, %ax; mov %ax, %ds; mov $text, %si
      "\xba\xf8\x03"                      //    mov $0x3f8, %dx: the serial port
      "\xac\x84\xc0\x74\x03\xee\xeb\xf8"  // 1: lodsb; test %al, %al; jz 2f; out %al, (%dx); jmp 1b
      "\xba\x04\x06\xb8\x00\x20\xef"      // 2: mov $0x604, %dx; mov $0x2000, %ax; out %ax, (%dx)
      "\xf4\xeb\xfd"                      // 3: hlt; jmp 3b
      "hello from the guest\r\n\0"sv;
  std::fstream file(disk, std::ios::in | std::ios::out | std::ios::binary);
  file << code;
  file.seekp(510) << "\x55\xaa";
}

void Run(const std::vector<std::string>& words) {
  const example::TemporaryHome home;
  const auto ctx = msb::Context::Background().WithTimeout(std::chrono::minutes(2));
  msb::Config config{.home = home.Path() + "/home", .backend = "qemu"};
  std::string disk = words.size() == 1 ? words[0] : home.MakeImage(0);
  if (words.empty()) MakeBootable(disk);
  if (words.size() > 1) {
    config.qemu = {.kernel = words[0],
                   .initrd = words[1],
                   .append = words.size() > 2 ? words[2] : "console=ttyS0 panic=-1"};
  }
  const msb::Client client(config);
  const auto guest = msb::CreateSandbox(ctx, "guest", {msb::WithImage(disk)}, client);

  // The first serial port is written to console.log in the sandbox's directory.
  auto handle = msb::GetSandbox(ctx, "guest", client);
  const auto directory = std::filesystem::path(handle.Upper().path).parent_path();
  std::ifstream console(directory / "console.log");
  for (bool runs = true; runs;) {
    ctx.Check();
    handle.Refresh(ctx);
    runs = handle.Status() == msb::SandboxStatus::kRunning;
    // Read after the status, so that no output of a guest that has ended is missed.
    for (char c; console.get(c);) std::cout << c;
    console.clear();  // More may follow.
    std::cout.flush();
    if (runs) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  std::cout << "the guest is " << msb::ToString(handle.Status()) << "\n";
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() > 3 || (!words.empty() && words[0].starts_with("-"))) {
    std::cerr << "usage: console [DISK | KERNEL INITRD [PARAMETERS]]\n";
    return 2;
  }
  try {
    Run(words);
    return 0;
  } catch (const msb::Error& e) {
    std::cerr << "console: " << msb::ErrorKindName(e.kind()) << ": " << e.what() << "\n";
  } catch (const std::exception& e) {
    std::cerr << "console: " << e.what() << "\n";
  }
  return 1;
}
