// SPDX-License-Identifier: Apache-2.0
//
// Records in the manifest of a snapshot how consistent its disk is, so that every release can read
// the manifest. A snapshot of a sandbox that ran has a label, the only place that all generations
// have and all releases accept: 0.7 refuses a descriptor with extensions. A snapshot of a stopped
// sandbox has no such label, so its manifest is identical to those of releases before 0.7, which
// make no other snapshots. The layered generation has a field of its own.

#ifndef MSB_SRC_ARTIFACT_CONSISTENCY_H_
#define MSB_SRC_ARTIFACT_CONSISTENCY_H_

#include <map>
#include <string>
#include <string_view>

#include "src/artifact/manifest.h"

namespace msb::artifact {

inline constexpr std::string_view kConsistencyLabel = "msb.consistency";

inline constexpr std::string_view kStopped = "stopped";
inline constexpr std::string_view kFilesystemConsistent = "filesystem-consistent";
inline constexpr std::string_view kCrashConsistent = "crash-consistent";

// Records one of the above in a manifest of the manifest or descriptor generation.
void SetConsistency(Manifest& manifest, std::string_view consistency);

// Returns one of the above, or an empty string if it is not recorded: for a checkpoint, and if the
// record has any other value.
std::string ConsistencyOf(const Manifest& manifest);

// Returns the labels without the one above.
std::map<std::string, std::string> UserLabelsOf(const Manifest& manifest);

}  // namespace msb::artifact

#endif  // MSB_SRC_ARTIFACT_CONSISTENCY_H_
