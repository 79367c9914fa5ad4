// SPDX-License-Identifier: Apache-2.0
//
// Mutates qcow2 files table by table, and mends most of them.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/properties.h"
#include "tests/fuzz/qcow2_input.h"
#include "tests/fuzz/qcow2_mender.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace msb::fuzz {
namespace {

constexpr std::uint64_t kSectorBytes = 512;

class Mutator {
 public:
  Mutator(Qcow2Input& file, unsigned seed) : file_(file), places_(file), random_(seed) {}

  void Mutate() {
    const std::uint64_t kind = Below(10);
    if (kind < 2) {
      MutateHeader();
    } else if (kind < 3) {
      SetL1();
    } else if (kind < 6) {
      SetL2();
    } else if (kind < 7) {
      AddCluster();
    } else if (kind < 8) {
      SetRefcounts();
    } else {
      MutateCluster();
    }
    if (Below(4) != 0) MendQcow2(file_);
  }

 private:
  std::uint64_t Below(std::uint64_t n) {
    return std::uniform_int_distribution<std::uint64_t>(0, n - 1)(random_);
  }
  std::uint64_t Any() { return random_(); }

  // Returns the offset of a random cluster of the file.
  std::uint64_t AnyCluster() { return Below(file_.clusters()) << file_.cluster_bits(); }
  // Returns the offset of a random number in this cluster, from those that the input has.
  std::uint64_t AnyPlace(std::uint64_t cluster, std::uint64_t step) {
    const std::uint64_t given = (cluster >> file_.cluster_bits()) * file_.given_bytes();
    return file_.FileOffset(given + Below(file_.given_bytes() / step) * step);
  }

  void MutateHeader() {
    struct Field {
      std::uint64_t offset;
      std::size_t length;
    };
    constexpr Field kFields[] = {{4, 4},  {8, 8},  {16, 4},  {20, 4}, {24, 8}, {32, 4},
                                 {36, 4}, {40, 8}, {48, 8},  {56, 4}, {60, 4}, {72, 8},
                                 {88, 8}, {96, 4}, {100, 4}, {104, 1}};
    const Field field = kFields[Below(std::size(kFields))];
    const std::uint64_t now = file_.Number(field.offset, field.length);
    const std::uint64_t sectors = file_.Number(24, 8) / kSectorBytes;
    const std::uint64_t values[] = {
        now + 1,       now - 1,      now ^ std::uint64_t{1} << Below(field.length * 8), Below(32),
        8 * Below(64), AnyCluster(), (sectors + Below(65) - 32) * kSectorBytes,         Any()};
    file_.SetNumber(field.offset, field.length, values[Below(std::size(values))]);
  }

  void SetL1() {
    const std::uint64_t values[] = {0, AnyCluster() | kCopied, AnyCluster(), Any()};
    file_.SetNumber(places_.l1_offset + Below(places_.l1_bytes / 8 + 1) * 8, 8,
                    values[Below(std::size(values))]);
  }

  // Returns the offset of a random entry of a random L2 table; uses any cluster if there is no
  // table.
  std::uint64_t AnyL2Entry() {
    std::vector<std::uint64_t> tables;
    for (std::uint64_t i = 0; i < std::min<std::uint64_t>(places_.l1_bytes / 8, 512); ++i) {
      const std::uint64_t table = file_.Number(places_.l1_offset + i * 8, 8) & kOffsetMask;
      if (table != 0 && table >> file_.cluster_bits() < file_.clusters()) tables.push_back(table);
    }
    const std::uint64_t table = tables.empty() ? AnyCluster() : tables[Below(tables.size())];
    return AnyPlace(table, places_.l2_entry_bytes);
  }

  std::uint64_t CompressedEntry() {
    const unsigned offset_bits = 62 - (file_.cluster_bits() - 8);
    const std::uint64_t host = AnyCluster() + Below(file_.given_bytes());
    const std::uint64_t more_sectors = Below(std::uint64_t{1} << (file_.cluster_bits() - 8));
    return kCompressed | (Below(2) == 0 ? more_sectors : Below(4)) << offset_bits | host;
  }

  void SetL2() {
    const std::uint64_t at = AnyL2Entry();
    const std::uint64_t other = file_.Number(AnyL2Entry(), 8);
    const std::uint64_t now = file_.Number(at, 8);
    const std::uint64_t values[] = {0,
                                    1,
                                    AnyCluster() | kCopied,
                                    AnyCluster() | kCopied | 1,
                                    CompressedEntry(),
                                    CompressedEntry(),
                                    other,
                                    now ^ std::uint64_t{1} << Below(64)};
    file_.SetNumber(at, 8, values[Below(std::size(values))]);
    if (places_.l2_entry_bytes == 16) SetSubclusters(at + 8);
  }

  void SetSubclusters(std::uint64_t at) {
    const std::uint64_t allocated = Any() & Any() & 0xffff'ffff;
    const std::uint64_t zero = Any() & ~allocated;
    const std::uint64_t values[] = {0, 0xffff'ffff, allocated | zero << 32, file_.Number(at, 8),
                                    file_.Number(at, 8) ^ std::uint64_t{1} << Below(64)};
    file_.SetNumber(at, 8, values[Below(std::size(values))]);
  }

  // Adds a cluster of data, which later mutations may use for anything else.
  void AddCluster() {
    file_.bytes().resize(file_.clusters() * file_.given_bytes());
    const std::uint64_t added = file_.clusters() << file_.cluster_bits();
    file_.bytes().append(file_.given_bytes(), static_cast<char>(Below(256)));
    const std::uint64_t at = AnyL2Entry();
    file_.SetNumber(at, 8, added | kCopied);
    if (places_.l2_entry_bytes == 16) SetSubclusters(at + 8);
  }

  void SetRefcounts() {
    const std::uint64_t entry = AnyPlace(places_.refcount_table_offset, 8);
    const std::uint64_t block = file_.Number(entry, 8);
    if (block == 0 || Below(4) == 0) return file_.SetNumber(entry, 8, AnyCluster());
    file_.SetNumber(block + Below(file_.clusters() + 4), 1, Below(Below(2) == 0 ? 4 : 256));
  }

  // Mutates the bytes that the input has of a cluster, in place.
  void MutateCluster() {
    std::string& bytes = file_.bytes();
    const std::size_t begin = Below(file_.clusters()) * file_.given_bytes();
    const std::size_t length = std::min<std::size_t>(bytes.size() - begin, file_.given_bytes());
    const std::size_t at = begin + Below(length);
    const std::size_t rest = begin + length - at;
    LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(&bytes[at]), rest, rest);
  }

  Qcow2Input& file_;
  const Qcow2Places places_;
  std::mt19937_64 random_;
};

}  // namespace
}  // namespace msb::fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned seed) {
  using namespace msb::fuzz;
  Qcow2Input file{std::string(AsText(data, size))};
  if (file.clusters() > 0 && seed % 8 != 0) {
    Mutator(file, seed).Mutate();
    if (file.bytes().size() <= max_size) {
      std::copy(file.bytes().begin(), file.bytes().end(), data);
      return file.bytes().size();
    }
  }
  return LLVMFuzzerMutate(data, size, max_size);
}
