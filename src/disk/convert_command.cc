// SPDX-License-Identifier: Apache-2.0

#include "src/disk/convert_command.h"

#include <fmt/format.h>

namespace msb::disk {
namespace {

constexpr std::string_view kConverted = "-converted.qcow2";

}  // namespace

std::string InShell(std::string_view word) {
  std::string quoted = "'";
  for (const char c : word) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

std::filesystem::path Beside(const std::filesystem::path& path, std::string_view suffix) {
  return path.parent_path() / (path.stem().native() + std::string(suffix));
}

std::string ConvertCommand(const std::filesystem::path& path, std::string_view driver) {
  return fmt::format("qemu-img convert -f {} -O qcow2 {} {}", driver, InShell(path.native()),
                     InShell(Beside(path, kConverted).native()));
}

std::string DecryptCommand(const std::filesystem::path& path, std::string_view driver) {
  std::string file;  // In an option of QEMU, a comma is doubled.
  for (const char c : path.native()) file += c == ',' ? std::string(",,") : std::string(1, c);
  const std::string_view key = driver == "luks" ? "key-secret" : "encrypt.key-secret";
  return fmt::format(
      "qemu-img convert --object secret,id=key,file=KEYFILE --image-opts -O qcow2 {} {}",
      InShell(fmt::format("driver={},{}=key,file.filename={}", driver, key, file)),
      InShell(Beside(path, kConverted).native()));
}

std::string CryptsetupCommand(const std::filesystem::path& path) {
  return fmt::format(
      "cryptsetup open --readonly {} msb-decrypted && qemu-img convert -f raw -O qcow2 "
      "/dev/mapper/msb-decrypted {}",
      InShell(path.native()), InShell(Beside(path, kConverted).native()));
}

}  // namespace msb::disk
