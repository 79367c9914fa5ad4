// SPDX-License-Identifier: Apache-2.0
//
// Caches recently read parts of L2 tables.

#ifndef MSB_SRC_DISK_TABLE_CACHE_H_
#define MSB_SRC_DISK_TABLE_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace msb::disk {

// A TablePart holds a part of an L2 table.
struct TablePart {
  std::uint64_t entries = 0;
  std::vector<std::uint64_t> numbers;  // The numbers of these entries; empty if all are 0.
};

// A TableCache is shared by all the files of a disk, so that a long chain needs no more memory than
// one file. Several threads may use it at the same time.
class TableCache {
 public:
  using Key = std::pair<const void*, std::uint64_t>;  // A file, and an offset in it.
  using Part = std::shared_ptr<const TablePart>;

  // Returns the part, or null if it is not cached.
  Part Find(const Key& key) {
    const std::lock_guard lock(mutex_);
    const auto found = index_.find(key);
    if (found == index_.end()) return nullptr;
    parts_.splice(parts_.begin(), parts_, found->second);
    return found->second->second;
  }

  void Insert(const Key& key, Part part) {
    const std::lock_guard lock(mutex_);
    if (index_.contains(key)) return;  // Another thread has read it meanwhile.
    bytes_ += CostOf(*part);
    parts_.emplace_front(key, std::move(part));
    index_[key] = parts_.begin();
    while (bytes_ > kMaxBytes && parts_.size() > 1) {
      bytes_ -= CostOf(*parts_.back().second);
      index_.erase(parts_.back().first);
      parts_.pop_back();
    }
  }

 private:
  static constexpr std::size_t kMaxBytes = 16 << 20;

  static std::size_t CostOf(const TablePart& part) {
    constexpr std::size_t kOverhead = 256;  // For the part, the index and the list.
    return kOverhead + part.numbers.size() * sizeof(std::uint64_t);
  }

  std::mutex mutex_;  // Guards the members below.
  std::size_t bytes_ = 0;
  std::list<std::pair<Key, Part>> parts_;  // Most recently used first.
  std::map<Key, std::list<std::pair<Key, Part>>::iterator> index_;
};

}  // namespace msb::disk

#endif  // MSB_SRC_DISK_TABLE_CACHE_H_
