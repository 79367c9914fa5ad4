#include "src/disk/scan.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "src/base/file.h"

namespace msb::disk {
namespace {

constexpr unsigned kMaxWorkers = 16;

struct Ticket {
  std::uint64_t turn = 0;  // Counts the regions that have data.
  std::uint64_t offset = 0;
  std::vector<Extent> data;
};

// Deals out the regions that have data, and the right to commit them.
class RegionDealer {
 public:
  RegionDealer(int fd, std::uint64_t size) : extents_(fd, size) { next_ = extents_.Next(); }

  // False when there are no more.
  bool Take(Ticket& ticket) {
    const std::lock_guard lock(mutex_);
    ticket.data.clear();
    if (!next_ || failed_) return false;
    ticket.turn = dealt_++;
    ticket.offset = next_->offset / kRegionBytes * kRegionBytes;
    const std::uint64_t region_end = ticket.offset + kRegionBytes;
    while (next_ && next_->offset < region_end) {
      const std::uint64_t end = std::min(next_->end(), region_end);
      ticket.data.push_back({next_->offset, end - next_->offset});
      next_ = end < next_->end() ? Extent{end, next_->end() - end} : extents_.Next();
    }
    return true;
  }

  // Waits until all regions dealt before are committed; false if one of them failed.
  bool AwaitTurn(const Ticket& ticket) {
    std::unique_lock lock(mutex_);
    turn_changed_.wait(lock, [&] { return failed_ || committed_ == ticket.turn; });
    return !failed_;
  }

  void EndTurn() {
    const std::lock_guard lock(mutex_);
    ++committed_;
    turn_changed_.notify_all();
  }

  void Fail() {
    const std::lock_guard lock(mutex_);
    failed_ = true;
    turn_changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable turn_changed_;
  ExtentReader extents_;
  std::optional<Extent> next_;
  std::uint64_t dealt_ = 0;
  std::uint64_t committed_ = 0;
  bool failed_ = false;
};

void FillZeros(std::span<std::byte> bytes, std::uint64_t from, std::uint64_t to) {
  if (from < to)
    std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(from), to - from, std::byte{0});
}

// Reads the data of a region, and fills with zeros what is left of each block that has data.
// Returns the bytes of data.
std::uint64_t ReadRegion(int fd, const Ticket& ticket, std::span<std::byte> bytes) {
  std::uint64_t total = 0;
  std::uint64_t filled = 0;  // The end of what is read or zeroed, in the region.
  for (const Extent& extent : ticket.data) {
    const std::uint64_t start = extent.offset - ticket.offset;
    const std::uint64_t end = start + extent.length;
    const std::uint64_t filled_block = (filled + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    FillZeros(bytes, filled, std::min(filled_block, start));
    FillZeros(bytes, std::max(filled, start / kBlockBytes * kBlockBytes), start);
    base::ReadExactly(fd, bytes.data() + start, extent.length, extent.offset);
    filled = end;
    total += extent.length;
  }
  const std::uint64_t last_block = (filled + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  FillZeros(bytes, filled, std::min<std::uint64_t>(last_block, bytes.size()));
  return total;
}

void ScanRegions(int fd, std::uint64_t size, RegionDealer& dealer, base::ProgressMeter& meter,
                 RegionConsumer& consumer) {
  std::vector<std::byte> buffer(kRegionHeadroom + std::min(size, kRegionBytes));
  for (Ticket ticket; dealer.Take(ticket);) {
    const std::uint64_t length = std::min(kRegionBytes, size - ticket.offset);
    const Region region{ticket.offset, std::span(buffer).subspan(kRegionHeadroom, length),
                        ticket.data};
    const std::uint64_t data = ReadRegion(fd, ticket, region.bytes);
    consumer.Process(region);
    if (!dealer.AwaitTurn(ticket)) return;
    consumer.Commit(region);
    dealer.EndTurn();
    meter.Add(data);
  }
}

}  // namespace

void ScanData(int fd, std::uint64_t size, base::ProgressMeter& meter, RegionConsumer& consumer) {
  RegionDealer dealer(fd, size);
  std::mutex failing;
  std::exception_ptr failure;
  const auto work = [&] {
    try {
      ScanRegions(fd, size, dealer, meter, consumer);
    } catch (...) {
      dealer.Fail();
      const std::lock_guard lock(failing);
      if (!failure) failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> helpers;
    const std::uint64_t regions = (size + kRegionBytes - 1) / kRegionBytes;
    const unsigned cores = std::clamp(std::thread::hardware_concurrency(), 1U, kMaxWorkers);
    for (std::uint64_t n = 1; n < std::min<std::uint64_t>(cores, regions); ++n) {
      try {
        helpers.emplace_back(work);
      } catch (const std::system_error&) {
        break;  // No more threads to be had; those that there are do the work.
      }
    }
    work();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace msb::disk
