// What a chain of artifacts becomes in an archive: the manifests that it will carry.

#ifndef MSB_SRC_ARCHIVE_EXPORT_CHAIN_H_
#define MSB_SRC_ARCHIVE_EXPORT_CHAIN_H_

#include <string>
#include <vector>

#include "src/archive/member.h"
#include "src/artifact/store.h"

namespace msb::archive {

struct OutgoingSnapshot {
  const artifact::Artifact* source = nullptr;
  artifact::Manifest manifest = {};  // As it goes out, with one layer.
  std::string bytes = {};            // Of the manifest.
  std::string directory = {};        // Its directory's name in the archive.
};

struct OutgoingChain {
  Layout layout = Layout::kInventory;
  std::vector<OutgoingSnapshot> snapshots;  // As the artifacts.
};

// A kManifest chain goes out in the legacy layout, a kDescriptor one in the inventory layout, and
// so does a kLayered one, as descriptors. The artifacts must outlive the result.
// kUnsupportedOperation: a checkpoint, several layers, or generations that mix.
OutgoingChain PrepareChain(const std::vector<artifact::Artifact>& chain);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_EXPORT_CHAIN_H_
