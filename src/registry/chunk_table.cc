// SPDX-License-Identifier: Apache-2.0

#include "src/registry/chunk_table.h"

#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "src/artifact/manifest_json.h"
#include "src/base/digest.h"
#include "src/base/fields.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::registry {
namespace {

using base::Fields;
using base::Json;
using base::Malformed;

// A change of up to 8 MiB touches one chunk, or two if it crosses a border. Chunks of 16 MiB would
// be crossed half as often, but would resend in the best case as many bytes as these do in the
// worst. docs/benchmarks.md has measurements.
constexpr std::uint64_t kDefaultChunkBytes = 8 << 20;

// The values of a table with kMaxChunks chunks, with room for those outside of the chunks.
constexpr std::size_t kMaxTableValues = 5 * kMaxChunks + 64;

std::string HashText(const artifact::MerkleHash& hash) { return "blake3:" + base::Hex(hash); }

artifact::MerkleHash ParseHash(std::string_view text) {
  const base::Digest digest = base::Digest::Require(text);
  artifact::MerkleHash hash;
  for (std::size_t i = 0; i < hash.size(); ++i) {
    const char* byte = digest.hex().data() + 2 * i;
    std::from_chars(byte, byte + 2, hash[i], 16);
  }
  return hash;
}

std::size_t CountChunks(const std::vector<disk::Extent>& data, std::uint64_t chunk_size) {
  std::size_t count = 0;
  std::uint64_t next = 0;  // The first chunk that has not been counted.
  for (const disk::Extent& extent : data) {
    const std::uint64_t first = std::max(next, extent.offset / chunk_size);
    const std::uint64_t end = (extent.end() - 1) / chunk_size + 1;
    if (end > first) count += end - first;
    next = std::max(next, end);
  }
  return count;
}

class TableParser {
 public:
  explicit TableParser(const Json& document)
      : fields_(document, "", {"schema", "file", "size", "chunk_size", "integrity", "chunks"},
                Fields::Others::kRefuse) {}

  ChunkTable Parse() {
    fields_.Expect("schema", std::uint64_t{1});
    table_.file = fields_.Text("file");
    table_.size = fields_.Size("size");
    table_.chunk_size = fields_.Size("chunk_size");
    if (!std::has_single_bit(table_.chunk_size) || table_.chunk_size < kMinChunkBytes ||
        table_.chunk_size > kMaxChunkBytes) {
      Malformed("chunk_size", fmt::format("must be a power of two from {} to {}, but is {}",
                                          kMinChunkBytes, kMaxChunkBytes, table_.chunk_size));
    }
    ParseIntegrity();
    ParseChunks();
    const std::string root = RootOf(table_);
    if (root != table_.root) {
      Malformed("chunks",
                fmt::format("have the root {}, but the table records {}", root, table_.root));
    }
    return std::move(table_);
  }

 private:
  void ParseIntegrity() {
    std::optional<std::uint64_t> size = table_.size;
    const artifact::Integrity integrity =
        artifact::ReadIntegrity(fields_.At("integrity"), "integrity", size);
    if (integrity.algorithm != artifact::kFileMerkle) {
      Malformed("integrity.algorithm", fmt::format("must be {}", artifact::kFileMerkle));
    }
    table_.root = integrity.digest;
  }

  void ParseChunks() {
    const Json& chunks = fields_.At("chunks");
    if (!chunks.is_array()) base::MalformedType("chunks", "an array", chunks);
    if (chunks.size() > kMaxChunks) {
      Malformed("chunks", fmt::format("has {} elements, but at most {} are supported",
                                      chunks.size(), kMaxChunks));
    }
    const artifact::MerkleTree tree(table_.size);
    const artifact::MerkleHash zero = tree.Zero(tree.LevelOf(table_.chunk_size));
    for (const Json& value : chunks) {
      const std::string path = fmt::format("chunks[{}]", table_.chunks.size());
      Chunk chunk = ParseChunk(
          Fields(value, path, {"index", "hash", "digest", "size"}, Fields::Others::kRefuse));
      if (chunk.hash == zero) Malformed(path, "holds only zeros, so it must not be listed");
      table_.chunks.push_back(std::move(chunk));
    }
  }

  Chunk ParseChunk(const Fields& fields) const {
    Chunk chunk{.index = fields.Size("index"), .hash = ParseHash(fields.Digest("hash", "blake3"))};
    chunk.blob = {fields.Digest("digest", "sha256"), fields.Size("size")};
    if (!table_.chunks.empty() && chunk.index <= table_.chunks.back().index) {
      Malformed(fields.PathOf("index"), fmt::format("is {}, but must be greater than {}",
                                                    chunk.index, table_.chunks.back().index));
    }
    // Dividing avoids an overflow.
    if (table_.size == 0 || chunk.index > (table_.size - 1) / table_.chunk_size) {
      Malformed(fields.PathOf("index"),
                fmt::format("is {}, which is beyond the end of the file", chunk.index));
    }
    const std::uint64_t limit = ZSTD_compressBound(table_.RangeOf(chunk.index).length);
    if (chunk.blob.size == 0 || chunk.blob.size > limit) {
      Malformed(fields.PathOf("size"),
                fmt::format("must be from 1 to {}, but is {}", limit, chunk.blob.size));
    }
    return chunk;
  }

  const Fields fields_;
  ChunkTable table_;
};

}  // namespace

disk::Extent ChunkTable::RangeOf(std::uint64_t index) const {
  const std::uint64_t offset = index * chunk_size;
  return {offset, std::min(chunk_size, size - offset)};
}

std::vector<BlobDescriptor> ChunkTable::Blobs() const {
  std::vector<BlobDescriptor> blobs;
  std::set<std::string_view> seen;
  for (const Chunk& chunk : chunks) {
    if (seen.insert(chunk.blob.digest).second) blobs.push_back(chunk.blob);
  }
  return blobs;
}

std::uint64_t ChunkSizeFor(const std::vector<disk::Extent>& data, std::string_view name) {
  std::uint64_t size = kDefaultChunkBytes;
  while (CountChunks(data, size) > kMaxChunks) {
    size *= 2;
    if (size > kMaxChunkBytes) {
      base::Throw(ErrorKind::kUnsupportedOperation,
                  "{} has more than {} bytes of data, which is too much to push; export it instead",
                  name, kMaxChunks * kMaxChunkBytes);
    }
  }
  return size;
}

std::string RootOf(const ChunkTable& table) {
  const artifact::MerkleTree tree(table.size);
  std::vector<artifact::MerkleTree::Node> nodes;
  nodes.reserve(table.chunks.size());
  for (const Chunk& chunk : table.chunks) nodes.emplace_back(chunk.index, chunk.hash);
  return tree.Root(std::move(nodes), tree.LevelOf(table.chunk_size));
}

std::string WriteChunkTable(const ChunkTable& table) {
  std::string out = R"({"schema":1,"file":)";
  base::AppendJsonString(out, table.file);
  out += fmt::format(R"(,"size":{},"chunk_size":{},"integrity":)", table.size, table.chunk_size);
  artifact::AppendIntegrity(
      out, artifact::Integrity{std::string(artifact::kFileMerkle), table.root}, table.size);
  out += R"(,"chunks":[)";
  for (const Chunk& chunk : table.chunks) {
    if (out.back() == '}') out += ',';
    out += fmt::format(R"({{"index":{},"hash":"{}","digest":"{}","size":{}}})", chunk.index,
                       HashText(chunk.hash), chunk.blob.digest, chunk.blob.size);
  }
  return out + "]}";
}

ChunkTable ParseChunkTable(std::string_view bytes, std::string_view origin) {
  try {
    const Json document = base::ParseJson(bytes, kMaxTableValues);
    return TableParser(document).Parse();
  } catch (const std::invalid_argument& e) {
    base::Throw(ErrorKind::kSnapshotIntegrity, "{} is malformed: {}; push the snapshot again",
                origin, e.what());
  }
}

}  // namespace msb::registry
