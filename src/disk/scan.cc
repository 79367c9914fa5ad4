// SPDX-License-Identifier: Apache-2.0

#include "src/disk/scan.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include "src/base/core_count.h"
#include "src/base/file.h"

namespace msb::disk {
namespace {

constexpr unsigned kMaxWorkers = 16;

// A region that a worker has taken.
struct Ticket {
  std::uint64_t turn = 0;  // Number of the region in the order of commits.
  std::uint64_t offset = 0;
  std::vector<Extent> data;
};

// Provides the regions of a scan.
class Source {
 public:
  virtual ~Source() = default;
  // Takes the next region that has data. Returns false at the end. Called by one thread at a time.
  virtual bool Take(Ticket& ticket, std::span<std::byte> bytes) = 0;
  // Reads the data of a region. Called by several threads at the same time.
  virtual void Read(const Ticket& ticket, std::span<std::byte> bytes) = 0;
  // Ends a call of Take that is waiting in another thread.
  virtual void Stop() {}
};

// Divides the extents that next_extent returns into regions of a file.
template <typename NextExtent>
class FileSource : public Source {
 public:
  FileSource(int fd, NextExtent next_extent) : fd_(fd), next_extent_(std::move(next_extent)) {
    next_ = next_extent_();
  }

  bool Take(Ticket& ticket, std::span<std::byte> /*bytes*/) override {
    if (!next_) return false;
    ticket.offset = next_->offset / kRegionBytes * kRegionBytes;
    const std::uint64_t region_end = ticket.offset + kRegionBytes;
    while (next_ && next_->offset < region_end) {
      const std::uint64_t end = std::min(next_->end(), region_end);
      ticket.data.push_back({next_->offset, end - next_->offset});
      next_ = end < next_->end() ? Extent{end, next_->end() - end} : next_extent_();
    }
    return true;
  }

  void Read(const Ticket& ticket, std::span<std::byte> bytes) override {
    for (const Extent& extent : ticket.data) {
      base::ReadExactly(fd_, bytes.data() + (extent.offset - ticket.offset), extent.length,
                        extent.offset);
    }
  }

 private:
  int fd_;
  NextExtent next_extent_;
  std::optional<Extent> next_;
};

// Works like FileSource, but for the disk of an image.
template <typename NextExtent>
class ImageSource : public FileSource<NextExtent> {
 public:
  ImageSource(const DiskImage& image, NextExtent next_extent)
      : FileSource<NextExtent>(-1, std::move(next_extent)), image_(image) {}

  void Read(const Ticket& ticket, std::span<std::byte> bytes) override {
    for (const Extent& extent : ticket.data) {
      image_.Read(bytes.subspan(extent.offset - ticket.offset, extent.length), extent.offset);
    }
  }

 private:
  const DiskImage& image_;
};

class StreamSource : public Source {
 public:
  explicit StreamSource(RegionStream& stream) : stream_(stream) {}

  bool Take(Ticket& ticket, std::span<std::byte> bytes) override {
    return stream_.Next(ticket.offset, ticket.data, bytes);
  }
  void Read(const Ticket& /*ticket*/, std::span<std::byte> /*bytes*/) override {}
  void Stop() override { stream_.Stop(); }

 private:
  RegionStream& stream_;
};

// Gives the regions that have data to workers, and lets the workers commit them in order.
class RegionDealer {
 public:
  explicit RegionDealer(Source& source) : source_(source) {}

  // Returns false if there are no more regions, or if the scan has failed.
  bool Take(Ticket& ticket, std::span<std::byte> bytes) {
    // taking_ is separate from committing_: a stream may be slow, and regions that were taken must
    // not wait for it.
    const std::lock_guard lock(taking_);
    ticket.data.clear();
    if (Failed()) return false;
    try {
      if (!source_.Take(ticket, bytes)) return false;
    } catch (...) {
      Fail();  // Before another worker calls Take on the failed source.
      throw;
    }
    ticket.turn = dealt_++;
    return true;
  }

  // Waits until all regions that were taken before are committed. Returns false if the scan has
  // failed.
  bool AwaitTurn(const Ticket& ticket) {
    std::unique_lock lock(committing_);
    turn_changed_.wait(lock, [&] { return failed_ || committed_ == ticket.turn; });
    return !failed_;
  }

  void EndTurn() {
    const std::lock_guard lock(committing_);
    ++committed_;
    turn_changed_.notify_all();
  }

  void Fail() {
    const std::lock_guard lock(committing_);
    failed_ = true;
    turn_changed_.notify_all();
  }

 private:
  bool Failed() {
    const std::lock_guard lock(committing_);
    return failed_;
  }

  std::mutex taking_;
  Source& source_;           // Guarded by taking_, except for Read and Stop.
  std::uint64_t dealt_ = 0;  // Guarded by taking_.
  std::mutex committing_;    // Guards the members below.
  std::condition_variable turn_changed_;
  std::uint64_t committed_ = 0;
  bool failed_ = false;
};

void FillZeros(std::span<std::byte> bytes, std::uint64_t from, std::uint64_t to) {
  if (from < to)
    std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(from), to - from, std::byte{0});
}

// Fills the rest of each block that has data with zeros. Returns the number of bytes of data.
std::uint64_t FillAroundData(const Ticket& ticket, std::span<std::byte> bytes) {
  std::uint64_t total = 0;
  std::uint64_t filled = 0;  // End of the data and zeros written so far, in the region.
  for (const Extent& extent : ticket.data) {
    const std::uint64_t start = extent.offset - ticket.offset;
    const std::uint64_t filled_block = (filled + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    FillZeros(bytes, filled, std::min(filled_block, start));
    FillZeros(bytes, std::max(filled, start / kBlockBytes * kBlockBytes), start);
    filled = start + extent.length;
    total += extent.length;
  }
  const std::uint64_t last_block = (filled + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  FillZeros(bytes, filled, std::min<std::uint64_t>(last_block, bytes.size()));
  return total;
}

void Work(Source& source, std::uint64_t size, RegionDealer& dealer, base::ProgressMeter& meter,
          RegionConsumer& consumer) {
  std::vector<std::byte> buffer(kRegionHeadroom + std::min(size, kRegionBytes));
  const std::span<std::byte> room = std::span(buffer).subspan(kRegionHeadroom);
  for (Ticket ticket; dealer.Take(ticket, room);) {
    const Region region{ticket.offset, room.first(std::min(kRegionBytes, size - ticket.offset)),
                        ticket.data};
    source.Read(ticket, region.bytes);
    const std::uint64_t data = FillAroundData(ticket, region.bytes);
    consumer.Process(region);
    if (!dealer.AwaitTurn(ticket)) return;
    consumer.Commit(region);
    dealer.EndTurn();
    meter.Add(data);
  }
}

void Scan(Source& source, std::uint64_t size, base::ProgressMeter& meter,
          RegionConsumer& consumer) {
  RegionDealer dealer(source);
  std::mutex failing;
  std::exception_ptr failure;
  const auto work = [&] {
    try {
      Work(source, size, dealer, meter, consumer);
    } catch (...) {
      {
        const std::lock_guard lock(failing);
        if (!failure) failure = std::current_exception();
      }
      dealer.Fail();
      source.Stop();
    }
  };
  {
    std::vector<std::jthread> helpers;
    const std::uint64_t regions = (size + kRegionBytes - 1) / kRegionBytes;
    const unsigned cores = std::min(base::CoreCount(), kMaxWorkers);
    for (std::uint64_t n = 1; n < std::min<std::uint64_t>(cores, regions); ++n) {
      try {
        helpers.emplace_back(work);
      } catch (const std::system_error&) {
        break;  // No more threads can be created; the existing ones do the work.
      }
    }
    work();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

void ScanData(int fd, std::uint64_t size, base::ProgressMeter& meter, RegionConsumer& consumer,
              std::uint64_t start) {
  FileSource source(fd, [extents = ExtentReader(meter.context(), fd, size, start)]() mutable {
    return extents.Next();
  });
  Scan(source, size, meter, consumer);
}

void ScanRanges(int fd, std::uint64_t size, std::span<const Extent> ranges,
                base::ProgressMeter& meter, RegionConsumer& consumer) {
  FileSource source(fd, [ranges]() mutable -> std::optional<Extent> {
    if (ranges.empty()) return std::nullopt;
    const Extent first = ranges.front();
    ranges = ranges.subspan(1);
    return first;
  });
  Scan(source, size, meter, consumer);
}

void ScanImage(const DiskImage& image, base::ProgressMeter& meter, RegionConsumer& consumer) {
  ImageSource source(image, [&image, position = std::uint64_t{0}]() mutable {
    const auto extent = image.NextData(position);
    if (extent) position = extent->end();
    return extent;
  });
  Scan(source, image.size(), meter, consumer);
}

void ScanStream(RegionStream& stream, std::uint64_t size, base::ProgressMeter& meter,
                RegionConsumer& consumer) {
  StreamSource source(stream);
  Scan(source, size, meter, consumer);
}

}  // namespace msb::disk
