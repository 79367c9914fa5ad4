// SPDX-License-Identifier: Apache-2.0
//
// Describes a disk or an image file as a list of chunks, which the registry holds as blobs.
// docs/formats.md defines the document.

#ifndef MSB_SRC_REGISTRY_CHUNK_TABLE_H_
#define MSB_SRC_REGISTRY_CHUNK_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/artifact/merkle.h"
#include "src/disk/extents.h"
#include "src/registry/registry_client.h"

namespace msb::registry {

// The limits of the size of a chunk, in bytes. A chunk is held in memory, together with its blob.
inline constexpr std::uint64_t kMinChunkBytes = artifact::kMerkleLeafBytes;
inline constexpr std::uint64_t kMaxChunkBytes = 256 << 20;
// The maximum number of bytes that the chunks and blobs of a pull occupy in memory. One
// chunk may always be processed, even if it is larger.
inline constexpr std::uint64_t kMaxBytesInMemory = 96 << 20;
// The maximum number of chunks of a file. With so many, the manifest that lists their blobs is
// shorter than the 4 MiB that registries accept.
inline constexpr std::size_t kMaxChunks = 1 << 14;
// The longest chunk table that is accepted, in bytes; one with kMaxChunks chunks is shorter.
inline constexpr std::size_t kMaxTableBytes = 8 << 20;

// A Chunk is an aligned range of the file that does not consist of zeros only.
struct Chunk {
  std::uint64_t index = 0;         // The range begins at index * chunk_size.
  artifact::MerkleHash hash = {};  // The node of the file's integrity tree that covers the range.
  // The blob: one zstd frame of the content, from which zeros at the end may be left out.
  BlobDescriptor blob = {};
};

struct ChunkTable {
  // For a disk, its name in the artifact; for a file of an image, its name in the cache.
  std::string file = {};
  std::uint64_t size = 0;          // Bytes of the file, holes included.
  std::uint64_t chunk_size = 0;    // Bytes; a power of two.
  std::string root = {};           // The root of the integrity tree, "blake3:…".
  std::vector<Chunk> chunks = {};  // By index. Ranges that are not listed are holes.

  // Returns the range of a chunk in the file.
  disk::Extent RangeOf(std::uint64_t index) const;
  // Returns the blobs of the chunks, each once, in the order of their first chunks.
  std::vector<BlobDescriptor> Blobs() const;
};

// Returns the chunk size for a file of size bytes with these extents of data: the smallest with
// which the file has at most kMaxChunks chunks, but not smaller than the default.
// Throws kUnsupportedOperation if it would exceed kMaxChunkBytes. name is the file in the message.
std::uint64_t ChunkSizeFor(const std::vector<disk::Extent>& data, std::string_view name);

// Returns the root of the integrity tree that the chunks form.
std::string RootOf(const ChunkTable& table);

std::string WriteChunkTable(const ChunkTable& table);
// Parses a chunk table, and checks that the chunks are in order and within the file, that their
// sizes are within the limits, and that their hashes form the root. origin is the name of the
// document in messages. Throws kSnapshotIntegrity.
ChunkTable ParseChunkTable(std::string_view bytes, std::string_view origin);

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_CHUNK_TABLE_H_
