// SPDX-License-Identifier: Apache-2.0
//
// A Row represents one row of the table snapshot_index.

#ifndef MSB_SRC_INDEX_ROW_H_
#define MSB_SRC_INDEX_ROW_H_

#include <cstdint>
#include <optional>
#include <string>

#include "src/base/time.h"

namespace msb::index {

struct Row {
  std::string digest;
  std::optional<std::string> name;
  std::optional<std::string> group_name;  // Layered era only, like the next two fields.
  std::optional<std::string> group_path;
  std::optional<std::string> snapshot_id;
  std::optional<std::string> parent_digest;  // For a 0.7 snapshot: the parent's snapshot id.
  std::string image_ref;
  std::string image_manifest_digest;
  std::string format;  // Empty for a checkpoint, like fstype.
  std::string fstype;
  std::string artifact_path;
  std::optional<std::uint64_t> size_bytes;
  base::UtcTime created_at;
  std::string scope = "disk";
  std::string state_kind = "file";
  std::optional<std::string> checkpoint_manifest_digest;
};

// Returns the name of the row's snapshot, "GROUP:NAME" for a member of a group, or nullopt if it
// has no name.
inline std::optional<std::string> FullName(const Row& row) {
  return row.name && row.group_name ? *row.group_name + ":" + *row.name : row.name;
}

}  // namespace msb::index

#endif  // MSB_SRC_INDEX_ROW_H_
