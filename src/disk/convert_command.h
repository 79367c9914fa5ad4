// SPDX-License-Identifier: Apache-2.0
//
// Composes the commands that messages recommend for disk images.

#ifndef MSB_SRC_DISK_CONVERT_COMMAND_H_
#define MSB_SRC_DISK_CONVERT_COMMAND_H_

#include <filesystem>
#include <string>
#include <string_view>

namespace msb::disk {

// Returns word quoted for a POSIX shell.
std::string InShell(std::string_view word);

// Returns the path of a new file beside path: its name without the extension, then suffix.
std::filesystem::path Beside(const std::filesystem::path& path, std::string_view suffix);

// Returns the command that converts the disk image at path to an image that is supported. driver is
// the name of its format in qemu-img.
std::string ConvertCommand(const std::filesystem::path& path, std::string_view driver = "qcow2");

// Returns the command that converts an encrypted image to an image that is supported. driver is the
// name of its format in qemu-img, "qcow2" or "luks". The user must replace KEYFILE in it.
std::string DecryptCommand(const std::filesystem::path& path, std::string_view driver = "qcow2");
// Returns the commands that do the same for a LUKS container of any version. They need root.
std::string CryptsetupCommand(const std::filesystem::path& path);

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_CONVERT_COMMAND_H_
