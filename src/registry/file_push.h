// SPDX-License-Identifier: Apache-2.0
//
// Sends the chunks of one file to a repository.

#ifndef MSB_SRC_REGISTRY_FILE_PUSH_H_
#define MSB_SRC_REGISTRY_FILE_PUSH_H_

#include <cstdint>
#include <string>

#include "msb/context.h"
#include "src/base/file.h"
#include "src/base/progress.h"
#include "src/registry/chunk_table.h"
#include "src/registry/known_chunks.h"
#include "src/registry/registry_client.h"
#include "src/registry/worker_pool.h"

namespace msb::registry {

// PushMemory describes the memory that a push may occupy. At high levels, zstd needs so much memory
// that fewer workers fit.
struct PushMemory {
  unsigned workers = 1;          // The number of workers that may compress concurrently.
  std::uint64_t blob_bytes = 0;  // Bytes of the blobs that may wait to be sent.
};
// Divides kMaxPushBytes for this level, on a machine with this many cores.
PushMemory PushMemoryFor(int level, unsigned cores);

// The maximum number of bytes that the workers, the chunks and the blobs of a push occupy in
// memory. One chunk may always be processed, even if it is larger.
inline constexpr std::uint64_t kMaxPushBytes = 120 << 20;

// The state that all files of a push share.
struct PushSession {
  const Context& ctx;
  RegistryClient& client;
  WorkerPool& workers;
  KnownChunks& known;
  base::ProgressMeter& meter;
  std::string repository = {};
  int level = 3;
  std::uint64_t blob_room = 0;  // PushMemory::blob_bytes.
  // For the estimate of the total: bytes of data in all files, bytes of data in the chunks that
  // have been read, and bytes of the blobs that those chunks became.
  std::uint64_t data_bytes = 0;
  std::uint64_t read_bytes = 0;
  std::uint64_t blob_bytes = 0;
};

// An open file to push.
struct PushFile {
  int fd = -1;
  base::FileStamp stamp = {};   // The stamp when the file was opened.
  std::string table_name = {};  // ChunkTable::file
  std::string path = {};        // Its name in messages.
};

// Sends the chunks that the repository does not have, and returns the chunk table.
// Throws kSnapshotIntegrity if the file changed while it was read.
// Throws kUnsupportedOperation if it has too much data.
ChunkTable PushChunks(PushSession& session, const PushFile& file);

// Sends a document as a blob, and returns its descriptor.
BlobDescriptor PushDocument(PushSession& session, std::string bytes);

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_FILE_PUSH_H_
