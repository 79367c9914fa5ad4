// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes the parsers of what a registry sends: indexes, manifests, chunk tables and blobs. The
// first byte of the input selects the parser.

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "src/base/digest.h"
#include "src/registry/chunk_codec.h"
#include "src/registry/chunk_table.h"
#include "src/registry/documents.h"
#include "tests/fuzz/properties.h"

namespace {

using namespace msb;

registry::RemoteDocument Document(std::string_view media_type, std::string_view text) {
  return {std::string(media_type), base::Sha256Digest(text), std::string(text)};
}

// What is accepted must be the same after it was written and read again.
void CheckIndex(std::string_view text) {
  const auto parse = [](std::string_view bytes) {
    return registry::ParseSnapshotIndex(Document(registry::kIndexMediaType, bytes), "x");
  };
  const registry::SnapshotIndex index = parse(text);
  fuzz::Require(!index.entries.empty(), "an index without a head is accepted");
  fuzz::Require(parse(registry::WriteSnapshotIndex(index)).entries == index.entries,
                "an index changes when it is written");
}

void CheckManifest(std::string_view text) {
  const auto parse = [](std::string_view bytes) {
    return registry::ParseFileManifest(Document(registry::kManifestMediaType, bytes), "x");
  };
  const registry::FileManifest manifest = parse(text);
  const registry::FileManifest again = parse(registry::WriteFileManifest(manifest));
  fuzz::Require(again.content == manifest.content && again.table == manifest.table &&
                    again.manifest == manifest.manifest && again.form == manifest.form &&
                    again.chunks == manifest.chunks,
                "a manifest changes when it is written");
}

void CheckTable(std::string_view text) {
  const registry::ChunkTable table = registry::ParseChunkTable(text, "x");
  std::uint64_t end = 0;
  for (const registry::Chunk& chunk : table.chunks) {
    const disk::Extent range = table.RangeOf(chunk.index);
    fuzz::Require(range.offset >= end && range.end() <= table.size && range.length > 0,
                  "a chunk overlaps another one or the end of the file");
    end = range.end();
  }
  const std::string written = registry::WriteChunkTable(table);
  fuzz::Require(registry::WriteChunkTable(registry::ParseChunkTable(written, "x")) == written,
                "a chunk table changes when it is written");
}

void CheckBlob(std::string_view blob) {
  constexpr std::uint64_t kLimit = 1 << 16;
  static registry::ChunkCodec codec;
  fuzz::Require(codec.Decompress(blob, kLimit).size() <= kLimit,
                "a blob becomes longer than a chunk");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text = fuzz::AsText(data + 1, size - 1);
  try {
    switch (data[0] % 4) {
      case 0:
        CheckIndex(text);
        break;
      case 1:
        CheckManifest(text);
        break;
      case 2:
        CheckTable(text);
        break;
      default:
        CheckBlob(text);
    }
  } catch (const Error& e) {
    fuzz::Require(
        e.kind() == ErrorKind::kSnapshotIntegrity || e.kind() == ErrorKind::kUnsupportedOperation,
        "a document is refused with an error of another kind");
  } catch (const std::invalid_argument&) {
    // A blob was refused.
  }
  return 0;
}
