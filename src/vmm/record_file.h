// SPDX-License-Identifier: Apache-2.0
//
// Reads and writes the record of a sandbox (src/vmm/directory_record.h) in the sandbox's directory.

#ifndef MSB_SRC_VMM_RECORD_FILE_H_
#define MSB_SRC_VMM_RECORD_FILE_H_

#include <filesystem>
#include <optional>
#include <string>

#include "src/base/file.h"
#include "src/base/staging.h"
#include "src/vmm/directory_record.h"

namespace msb::vmm {

// Returns true if the directory has a record, even a malformed one. Only such directories may be
// removed or replaced.
bool HoldsSandbox(int dir);

// Opens the directory of a sandbox in dir, which need not have a record. Returns an empty
// descriptor if there is no such directory.
base::UniqueFd OpenSandbox(const std::filesystem::path& dir, const std::string& name);

// Reads the record in the open directory sandbox, and determines whether the sandbox still runs
// (DirectoryRecord::Judge). path is for messages. Returns nullopt if the directory has no record.
// Throws kInvalidConfig if the record is malformed or longer than 1 MiB.
std::optional<DirectoryRecord> ReadRecord(int sandbox, const std::filesystem::path& path);

// Writes the record of a new sandbox into its stage, after checking that it can be read again.
// Throws kInvalidArgument if the image's path is not UTF-8 or the record is longer than 512 KiB.
void WriteNewRecord(DirectoryRecord& record, const base::Stage& stage,
                    const std::filesystem::path& path);

// Replaces the record in the directory dir, and returns the JSON that it wrote. path is for
// messages.
// Throws kInvalidConfig if the record is longer than 1 MiB.
std::string SaveRecord(DirectoryRecord& record, int dir, const std::filesystem::path& path);

}  // namespace msb::vmm

#endif  // MSB_SRC_VMM_RECORD_FILE_H_
