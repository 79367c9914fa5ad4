// SPDX-License-Identifier: Apache-2.0

#include "src/artifact/consistency.h"

namespace msb::artifact {

void SetConsistency(Manifest& manifest, std::string_view consistency) {
  manifest.labels.erase(std::string(kConsistencyLabel));
  if (consistency == kStopped || consistency.empty()) return;
  manifest.labels.emplace(kConsistencyLabel, consistency);
}

std::string ConsistencyOf(const Manifest& manifest) {
  if (manifest.state_kind != "file") return {};
  const auto label = manifest.labels.find(std::string(kConsistencyLabel));
  std::string_view recorded = kStopped;
  if (label != manifest.labels.end()) {
    recorded = label->second;
  } else if (manifest.form == ManifestForm::kLayered) {
    recorded = manifest.captured;
  }
  for (const std::string_view known : {kStopped, kFilesystemConsistent, kCrashConsistent}) {
    if (recorded == known) return std::string(known);
  }
  return {};
}

std::map<std::string, std::string> UserLabelsOf(const Manifest& manifest) {
  std::map<std::string, std::string> labels = manifest.labels;
  labels.erase(std::string(kConsistencyLabel));
  return labels;
}

}  // namespace msb::artifact
