// SPDX-License-Identifier: Apache-2.0

#include "src/registry/file_push.h"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "src/artifact/merkle.h"
#include "src/base/digest.h"
#include "src/disk/extents.h"

namespace msb::registry {
namespace {

using disk::Extent;

// How many known chunks the registry is asked for before it has answered. If it has none of them,
// all are read again, so the number limits how far the push reads ahead.
constexpr std::size_t kMaxReused = 256;

// A chunk that has data, to be read.
struct Source {
  std::uint64_t index = 0;
  std::vector<Extent> data = {};

  std::uint64_t DataBytes() const {
    std::uint64_t bytes = 0;
    for (const Extent& extent : data) bytes += extent.length;
    return bytes;
  }
};

// Divides the extents of a file into chunks.
class Chunker {
 public:
  Chunker(std::vector<Extent> extents, std::uint64_t chunk_size)
      : extents_(std::move(extents)), chunk_size_(chunk_size) {}

  std::optional<Source> Next() {
    if (next_ == extents_.size()) return std::nullopt;
    Source source{.index = extents_[next_].offset / chunk_size_};
    const std::uint64_t end = (source.index + 1) * chunk_size_;
    while (next_ < extents_.size() && extents_[next_].offset < end) {
      Extent& extent = extents_[next_];
      const std::uint64_t length = std::min(extent.end(), end) - extent.offset;
      source.data.push_back({extent.offset, length});
      extent = {extent.offset + length, extent.length - length};
      if (extent.length == 0) ++next_;
    }
    return source;
  }

 private:
  std::vector<Extent> extents_;
  const std::uint64_t chunk_size_;
  std::size_t next_ = 0;
};

std::vector<Extent> ExtentsOf(const Context& ctx, const PushFile& file) {
  std::vector<Extent> extents;
  disk::ExtentReader reader(ctx, file.fd, file.stamp.size);
  while (const auto extent = reader.Next()) extents.push_back(*extent);
  return extents;
}

class ChunkPusher {
 public:
  ChunkPusher(PushSession& session, const PushFile& file)
      : session_(session), file_(file), tree_(file.stamp.size) {}

  ChunkPusher(const ChunkPusher&) = delete;
  ChunkPusher& operator=(const ChunkPusher&) = delete;
  // After a failure, workers may still read the file.
  ~ChunkPusher() { session_.workers.Abandon(); }

  ChunkTable Run() {
    std::vector<Extent> extents = ExtentsOf(session_.ctx, file_);
    table_ = {.file = file_.table_name,
              .size = file_.stamp.size,
              .chunk_size = ChunkSizeFor(extents, file_.path)};
    Chunker chunker(std::move(extents), table_.chunk_size);
    next_ = chunker.Next();
    const auto check_unchanged = [&] {
      base::CheckUnchanged(file_.stamp, base::StampOf(file_.fd), ErrorKind::kSnapshotIntegrity,
                           file_.path, "pushed");
    };
    base::ReadUnchanged(check_unchanged, [&] {
      session_.client.Run([&] {
        session_.workers.TakeResults();
        for (; !absent_.empty() && HasRoom(); absent_.pop_front()) Post(absent_.front(), false);
        while (next_ && HasRoom() && reused_ + absent_.size() < kMaxReused) {
          Begin(*std::move(next_));
          next_ = chunker.Next();
        }
        return !next_ && unfinished_ == 0;
      });
    });
    std::ranges::sort(table_.chunks, {}, &Chunk::index);
    table_.root = RootOf(table_);
    return std::move(table_);
  }

 private:
  // Returns the number of bytes of memory for the blob of a chunk, which is at most slightly longer
  // than the chunk, and for the part of the chunk that exceeds the buffer that a worker keeps.
  std::uint64_t ChunkRoom() const {
    return table_.chunk_size + table_.chunk_size - std::min(table_.chunk_size, kMaxKeptBytes);
  }
  bool HasRoom() const { return in_memory_ == 0 || in_memory_ + ChunkRoom() <= session_.blob_room; }

  void Begin(Source source) {
    ++unfinished_;
    Post(std::make_shared<const Source>(std::move(source)), true);
  }

  // Has a worker read the chunk and, unless it may be reused and is known, compress it.
  void Post(std::shared_ptr<const Source> source, bool may_reuse) {
    in_memory_ += ChunkRoom();
    session_.workers.Post([this, source = std::move(source), may_reuse](ChunkCodec& codec) {
      return Process(codec, source, may_reuse);
    });
  }

  // Called by a worker.
  WorkerPool::Result Process(ChunkCodec& codec, const std::shared_ptr<const Source>& source,
                             bool may_reuse) {
    const std::uint32_t level = tree_.LevelOf(table_.chunk_size);
    const auto bytes = codec.Read(file_.fd, table_.RangeOf(source->index), source->data);
    const artifact::MerkleHash hash = codec.Hash(tree_, bytes, level);
    if (hash == tree_.Zero(level)) {
      return [this, source] {
        in_memory_ -= ChunkRoom();
        session_.read_bytes += source->DataBytes();
        --unfinished_;
      };
    }
    if (const auto known = FindKnown(hash, may_reuse)) {
      return [this, source, hash, known = *known] { Reuse(source, hash, known); };
    }
    if (!BeginSending(hash)) {
      return [this, source, hash] { AwaitSent(source, hash); };
    }
    // It may have been sent between the two calls.
    if (const auto known = FindKnown(hash, false)) {
      return [this, source, hash, known = *known] {
        Reuse(source, hash, known);
        FinishSending(hash, known.blob);
      };
    }
    auto blob = std::make_shared<const std::string>(codec.Compress(bytes, session_.level));
    BlobDescriptor descriptor{codec.Digest(*blob), blob->size()};
    return [this, source, hash, blob = std::move(blob), descriptor = std::move(descriptor)] {
      Send(source, hash, {.descriptor = descriptor, .bytes = blob});
    };
  }

  std::optional<KnownChunk> FindKnown(const artifact::MerkleHash& hash, bool may_reuse) const {
    auto known = session_.known.Find(hash);
    return known && (may_reuse || known->is_stored) ? known : std::nullopt;
  }

  // Returns false if a chunk with this content is being sent already.
  bool BeginSending(const artifact::MerkleHash& hash) {
    const std::lock_guard lock(mutex_);
    return sending_.try_emplace(hash).second;
  }

  // Finishes the chunk as soon as the one with the same content has been sent.
  void AwaitSent(const std::shared_ptr<const Source>& source, const artifact::MerkleHash& hash) {
    {
      const std::lock_guard lock(mutex_);
      const auto sending = sending_.find(hash);
      if (sending != sending_.end()) {
        in_memory_ -= ChunkRoom();
        return sending->second.push_back(source);
      }
    }
    Reuse(source, hash, session_.known.Find(hash).value());
  }

  // Finishes the chunks that wait for a chunk that has been sent.
  void FinishSending(const artifact::MerkleHash& hash, const BlobDescriptor& blob) {
    std::vector<std::shared_ptr<const Source>> waiting;
    {
      const std::lock_guard lock(mutex_);
      waiting = std::move(sending_.extract(hash).mapped());
    }
    for (const auto& source : waiting) {
      session_.meter.AddSaved(blob.size);
      Finish(*source, hash, blob);
    }
  }

  void Reuse(const std::shared_ptr<const Source>& source, const artifact::MerkleHash& hash,
             const KnownChunk& known) {
    in_memory_ -= ChunkRoom();
    if (known.is_stored) {
      session_.meter.AddSaved(known.blob.size);
      return Finish(*source, hash, known.blob);
    }
    ++reused_;
    const bool is_here = known.repository == session_.repository;
    // A registry may have lost the blob. Without the bytes, it is found, mounted or absent.
    session_.client.PutBlob(session_.repository,
                            {.descriptor = known.blob,
                             .bytes = nullptr,
                             .mount_from = is_here ? std::string() : known.repository},
                            [this, source, hash, blob = known.blob](PutResult result) {
                              --reused_;
                              if (result == PutResult::kAbsent) return absent_.push_back(source);
                              session_.meter.AddSaved(blob.size);
                              Finish(*source, hash, blob);
                            });
  }

  void Send(const std::shared_ptr<const Source>& source, const artifact::MerkleHash& hash,
            NewBlob blob) {
    in_memory_ = in_memory_ - ChunkRoom() + blob.descriptor.size;
    const BlobDescriptor descriptor = blob.descriptor;
    session_.client.PutBlob(session_.repository, std::move(blob),
                            [this, source, hash, descriptor](PutResult result) {
                              in_memory_ -= descriptor.size;
                              if (result == PutResult::kSent) {
                                session_.blob_bytes += descriptor.size;
                              } else {
                                session_.meter.AddSaved(descriptor.size);
                              }
                              Finish(*source, hash, descriptor);
                              FinishSending(hash, descriptor);
                            });
  }

  void Finish(const Source& source, const artifact::MerkleHash& hash, const BlobDescriptor& blob) {
    table_.chunks.push_back({source.index, hash, blob});
    session_.known.Add(hash, blob);
    session_.read_bytes += source.DataBytes();
    EstimateTotal();
    --unfinished_;
  }

  // Assumes that the rest becomes as short as what has been read.
  void EstimateTotal() const {
    const std::uint64_t left =
        session_.data_bytes - std::min(session_.data_bytes, session_.read_bytes);
    const double ratio = static_cast<double>(session_.blob_bytes) /
                         static_cast<double>(std::max<std::uint64_t>(session_.read_bytes, 1));
    session_.meter.SetTotal(session_.blob_bytes +
                            static_cast<std::uint64_t>(ratio * static_cast<double>(left)));
  }

  PushSession& session_;
  const PushFile& file_;
  const artifact::MerkleTree tree_;
  ChunkTable table_;
  std::optional<Source> next_;
  std::size_t unfinished_ = 0;  // Chunks that were begun and are not in the table.
  std::uint64_t in_memory_ = 0;
  std::size_t reused_ = 0;  // Chunks of which the registry is asked whether it has the blob.
  std::mutex mutex_;
  // The chunks that are being sent, each with others that have the same content. Guarded by mutex_.
  std::map<artifact::MerkleHash, std::vector<std::shared_ptr<const Source>>> sending_;
  // Chunks whose known blob the registry does not have, so that they must be read again.
  std::deque<std::shared_ptr<const Source>> absent_;
};

}  // namespace

PushMemory PushMemoryFor(int level, unsigned cores) {
  const std::uint64_t worker = CompressionBytes(level) + kMaxKeptBytes;
  // Each worker must have room for the blob that it makes.
  const std::uint64_t workers = std::clamp<std::uint64_t>(kMaxPushBytes / (worker + kMaxKeptBytes),
                                                          1, std::min(cores, kMaxWorkers));
  return {.workers = static_cast<unsigned>(workers),
          .blob_bytes = kMaxPushBytes - std::min(kMaxPushBytes, workers * worker)};
}

ChunkTable PushChunks(PushSession& session, const PushFile& file) {
  ChunkTable table = ChunkPusher(session, file).Run();
  if (HasOneContentPerBlob(table)) return table;
  // A table of the registry has named the wrong blob, so read all chunks again.
  session.known.Forget();
  return ChunkPusher(session, file).Run();
}

BlobDescriptor PushDocument(PushSession& session, std::string bytes) {
  BlobDescriptor descriptor{base::Sha256Digest(bytes), bytes.size()};
  bool done = false;
  session.client.PutBlob(
      session.repository,
      {.descriptor = descriptor, .bytes = std::make_shared<const std::string>(std::move(bytes))},
      [&](PutResult) { done = true; });
  session.client.Run([&] { return done; });
  return descriptor;
}

}  // namespace msb::registry
