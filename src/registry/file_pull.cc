// SPDX-License-Identifier: Apache-2.0

#include "src/registry/file_pull.h"

#include <algorithm>
#include <map>
#include <memory>
#include <stdexcept>
#include <utility>

#include "src/artifact/integrity.h"
#include "src/base/digest.h"
#include "src/base/file.h"
#include "src/base/space.h"
#include "src/base/throw.h"
#include "src/disk/extents.h"
#include "src/disk/sparse_write.h"

namespace msb::registry {
namespace {

using base::Throw;
using disk::Extent;

// The maximum number of chunks that are looked for in local files at the same time.
constexpr std::size_t kMaxLookups = 32;

// The number of bytes that are written between two checks of the stop flag.
constexpr std::size_t kWritePiece = 8 << 20;

class ChunkPuller {
 public:
  ChunkPuller(PullSession& session, const PullFile& file)
      : session_(session),
        file_(file),
        table_(file.table),
        tree_(table_.size),
        level_(tree_.LevelOf(table_.chunk_size)) {}
  ChunkPuller(const ChunkPuller&) = delete;
  ChunkPuller& operator=(const ChunkPuller&) = delete;
  // After a failure, workers may still use the files.
  ~ChunkPuller() { session_.workers.Abandon(); }

  void Run() {
    if (file_.is_resumed || !file_.local.empty()) {
      Look();
    } else {
      for (const Chunk& chunk : table_.chunks) Miss(chunk);
    }
    Download();
  }

 private:
  // Looks for each chunk in the file itself and in the local files.
  void Look() {
    auto next = table_.chunks.begin();
    session_.client.Run([&] {
      session_.workers.TakeResults();
      for (; next != table_.chunks.end() && MayLookUp(); ++next) {
        ++unfinished_;
        session_.workers.Post([this, &chunk = *next](ChunkCodec& codec) -> WorkerPool::Result {
          const bool found = Find(codec, chunk);
          return [this, found, &chunk] {
            --unfinished_;
            found ? Save(chunk) : Miss(chunk);
          };
        });
      }
      return next == table_.chunks.end() && unfinished_ == 0;
    });
  }

  std::uint64_t LongestChunk() const { return std::min(table_.chunk_size, table_.size); }

  // Each worker that looks for a chunk has one in memory.
  bool MayLookUp() const {
    return unfinished_ == 0 ||
           (unfinished_ < kMaxLookups && (unfinished_ + 1) * LongestChunk() <= kMaxBytesInMemory);
  }

  // Called by a worker. Returns true if the file now has the chunk.
  bool Find(ChunkCodec& codec, const Chunk& chunk) const {
    const Extent range = table_.RangeOf(chunk.index);
    if (file_.is_resumed) {
      if (HasChunk(codec, chunk)) return true;
      disk::ClearRange(file_.fd, range);
    }
    for (const int local : file_.local) {
      if (base::StampOf(local).size < range.end()) continue;
      const std::span<std::byte> bytes = codec.Read(local, range, std::span(&range, 1));
      if (codec.Hash(tree_, bytes, level_) != chunk.hash) continue;
      if (!disk::ShareRange(local, file_.fd, range)) {
        WriteTo(codec, range.offset, bytes);
        return true;
      }
      // The local file may have changed since it was read.
      if (HasChunk(codec, chunk)) return true;
      disk::ClearRange(file_.fd, range);
    }
    return false;
  }

  // Returns true if the file has the chunk.
  bool HasChunk(ChunkCodec& codec, const Chunk& chunk) const {
    const Extent range = table_.RangeOf(chunk.index);
    return codec.Hash(tree_, codec.Read(file_.fd, range, std::span(&range, 1)), level_) ==
           chunk.hash;
  }

  void Save(const Chunk& chunk) {
    session_.meter.AddSaved(chunk.blob.size);
    session_.total -= std::min(session_.total, chunk.blob.size);
    session_.meter.SetTotal(session_.total);
  }

  // A blob that several chunks share is downloaded once.
  void Miss(const Chunk& chunk) {
    std::vector<const Chunk*>& chunks = missing_[chunk.blob.digest];
    if (chunks.empty()) {
      order_.push_back(&chunks);
    } else {
      CheckSameBlob(*chunks.front(), chunk);
      Save(chunk);
    }
    chunks.push_back(&chunk);
  }

  void CheckSameBlob(const Chunk& one, const Chunk& other) const {
    if (one.blob == other.blob && one.hash == other.hash) return;
    Throw(ErrorKind::kSnapshotIntegrity,
          "the chunk table of {} lists the blob {} for chunks with different content; push the "
          "snapshot again",
          file_.name, one.blob.digest);
  }

  void Download() {
    auto next = order_.begin();
    session_.client.Run([&] {
      session_.workers.TakeResults();
      for (; next != order_.end() && HasRoom(*(*next)->front()); ++next) Get(**next);
      return next == order_.end() && unfinished_ == 0;
    });
  }

  std::uint64_t RoomFor(const Chunk& chunk) const { return chunk.blob.size + LongestChunk(); }
  bool HasRoom(const Chunk& chunk) const {
    return unfinished_ == 0 || in_memory_ + RoomFor(chunk) <= kMaxBytesInMemory;
  }

  void Get(const std::vector<const Chunk*>& chunks) {
    const Chunk& first = *chunks.front();
    ++unfinished_;
    in_memory_ += RoomFor(first);
    session_.client.GetBlob(session_.repository, first.blob, [this, &chunks](std::string bytes) {
      auto blob = std::make_shared<const std::string>(std::move(bytes));
      session_.workers.Post([this, &chunks, blob = std::move(blob)](ChunkCodec& codec) {
        Write(codec, *blob, chunks);
        return [this, &chunks] {
          --unfinished_;
          in_memory_ -= RoomFor(*chunks.front());
          session_.verified.insert_or_assign(chunks.front()->blob.digest, chunks.front()->hash);
        };
      });
    });
  }

  // Called by a worker. Checks the blob and writes its content.
  void Write(ChunkCodec& codec, const std::string& blob,
             const std::vector<const Chunk*>& chunks) const {
    const Chunk& first = *chunks.front();
    const std::string found = codec.Digest(blob);
    if (found != first.blob.digest) Refuse(first, "has the digest " + found);
    const std::span<std::byte> content = Decompress(codec, blob, first);
    if (codec.Hash(tree_, WithinFile(content, first), level_) != first.hash) {
      Refuse(first, "does not have the content that the chunk table records");
    }
    for (const Chunk* chunk : chunks) {
      WriteTo(codec, table_.RangeOf(chunk->index).offset, WithinFile(content, *chunk));
    }
  }

  // Writes in pieces, so that a cancelled call need not wait for a long chunk.
  void WriteTo(const ChunkCodec& codec, std::uint64_t offset,
               std::span<const std::byte> bytes) const {
    while (!bytes.empty()) {
      codec.CheckStop();
      const auto piece = bytes.first(std::min(kWritePiece, bytes.size()));
      disk::WriteSparse(file_.fd, piece, offset);
      base::BeginWriteback(file_.fd, offset, piece.size());
      bytes = bytes.subspan(piece.size());
      offset += piece.size();
    }
  }

  // Returns the part of a chunk's content before the end of the file. The rest must be zeros.
  std::span<std::byte> WithinFile(std::span<std::byte> content, const Chunk& chunk) const {
    const std::size_t length =
        std::min<std::uint64_t>(content.size(), table_.RangeOf(chunk.index).length);
    if (!disk::IsZero(content.subspan(length))) {
      Refuse(chunk, "has content beyond the end of the file");
    }
    return content.first(length);
  }

  std::span<std::byte> Decompress(ChunkCodec& codec, const std::string& blob,
                                  const Chunk& chunk) const {
    try {
      return codec.Decompress(blob, table_.RangeOf(chunk.index).length);
    } catch (const std::invalid_argument& e) {
      Refuse(chunk, std::string("is malformed: ") + e.what());
    }
  }

  [[noreturn]] void Refuse(const Chunk& chunk, const std::string& problem) const {
    Throw(
        ErrorKind::kSnapshotIntegrity,
        "chunk {} of {}, the blob {}, {}; a push does not replace the blob, so remove it from the "
        "storage of the registry, then push the snapshot again",
        chunk.index, file_.name, chunk.blob.digest, problem);
  }

  PullSession& session_;
  const PullFile& file_;
  const ChunkTable& table_;
  const artifact::MerkleTree tree_;
  const std::uint32_t level_;
  std::map<std::string, std::vector<const Chunk*>> missing_;  // By the digest of the blob.
  // The values of missing_, in the order of the file. If the chunks were written in the order of
  // their digests, the file would have three times as many fragments.
  std::vector<const std::vector<const Chunk*>*> order_;
  std::size_t unfinished_ = 0;
  std::uint64_t in_memory_ = 0;
};

// Returns true if the content of the file is that of the table.
bool IsComplete(const Context& ctx, const PullFile& file) {
  base::ProgressMeter silent(ctx, "pull", 0);
  return artifact::ComputeIntegrity(ctx, file.fd, file.table.size, artifact::kFileMerkle, silent)
             .digest == file.table.root;
}

}  // namespace

void PullChunks(PullSession& session, const PullFile& file) {
  const Context silent = session.ctx.WithProgress({});
  const auto need = [&] {
    return base::SpaceNeed{.bound = base::SpaceNeed::Bound::kAtMost,
                           .bytes = std::min<std::uint64_t>(
                               file.table.size, file.table.chunks.size() * file.table.chunk_size)};
  };
  base::ReportingSpace(file.fd, need, [&] {
    ChunkPuller(session, file).Run();
    // An interrupted pull may have left data between the chunks.
    if (file.is_resumed && !IsComplete(silent, file)) {
      base::Resize(file.fd, 0);
      base::Resize(file.fd, file.table.size);
      PullFile again = file;
      again.is_resumed = false;
      ChunkPuller(session, again).Run();
    }
    base::Sync(file.fd);
  });
}

}  // namespace msb::registry
