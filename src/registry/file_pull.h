// SPDX-License-Identifier: Apache-2.0
//
// Assembles one file from chunks, which come from an interrupted pull, local files, or a registry.

#ifndef MSB_SRC_REGISTRY_FILE_PULL_H_
#define MSB_SRC_REGISTRY_FILE_PULL_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "msb/context.h"
#include "src/artifact/merkle.h"
#include "src/base/progress.h"
#include "src/registry/chunk_table.h"
#include "src/registry/registry_client.h"
#include "src/registry/worker_pool.h"

namespace msb::registry {

// The state that all files of a pull share.
struct PullSession {
  const Context& ctx;
  RegistryClient& client;
  WorkerPool& workers;
  base::ProgressMeter& meter;
  std::string repository = {};
  std::uint64_t total = 0;  // Bytes of the blobs of all files, without those that were saved.
  // The verified content of downloaded blobs, by digest.
  std::map<std::string, artifact::MerkleHash> verified = {};
};

// A file to assemble.
struct PullFile {
  int fd = -1;  // Open for reading and writing, with the size in the table.
  // The file is from an interrupted pull: any of its chunks may be complete, and it may have data
  // where there should be none.
  bool is_resumed = false;
  // Open files that may have the same chunks at the same offsets.
  std::vector<int> local = {};
  const ChunkTable& table;
  std::string name = {};  // Its name in messages.
};

// Gives the file the content that the table describes, with holes where blocks are all zeros, and
// flushes it.
// Throws kSnapshotIntegrity if a blob does not have the digest, the size or the content that the
// table records.
// Throws kIO if the disk becomes full; the file is empty then.
void PullChunks(PullSession& session, const PullFile& file);

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_FILE_PULL_H_
