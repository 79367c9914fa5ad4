// SPDX-License-Identifier: Apache-2.0
//
// Prepares a chain of artifacts for Export and Push: creates the manifests to send.

#ifndef MSB_SRC_ARCHIVE_EXPORT_CHAIN_H_
#define MSB_SRC_ARCHIVE_EXPORT_CHAIN_H_

#include <string>
#include <vector>

#include "src/archive/member.h"
#include "src/artifact/store.h"

namespace msb::archive {

struct OutgoingSnapshot {
  const artifact::OpenedArtifact* source = nullptr;
  artifact::Manifest manifest = {};  // The manifest to export; it has one layer.
  std::string bytes = {};            // The bytes of the manifest.
  std::string directory = {};        // The name of its directory in the archive.
};

struct OutgoingChain {
  Layout layout = Layout::kInventory;
  std::vector<OutgoingSnapshot> snapshots;  // In the order of the artifacts.
  // The files of the images to export, relative to the cache. PrepareChain leaves it empty.
  std::vector<std::string> images = {};
};

// Returns the chain in the form in which it is exported: a kManifest chain in the legacy layout,
// and a kDescriptor chain in the inventory layout. A kLayered chain is converted to descriptors and
// is exported in the inventory layout too. The artifacts must outlive the result.
// Throws kUnsupportedOperation if a snapshot is a checkpoint or has several layers, if a kLayered
// snapshot requires a feature that a descriptor cannot express, or if the chain has snapshots of
// several generations.
OutgoingChain PrepareChain(const std::vector<artifact::OpenedArtifact>& chain);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_EXPORT_CHAIN_H_
