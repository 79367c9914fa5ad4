// Makes the tables of a mutated qcow2 file agree, which no mutation would ever hit on: so that more
// files are sound, and what follows CheckQcow2 is reached.

#ifndef MSB_TESTS_FUZZ_QCOW2_MENDER_H_
#define MSB_TESTS_FUZZ_QCOW2_MENDER_H_

#include "tests/fuzz/qcow2_input.h"

namespace msb::fuzz {

// What the header says of the tables.
struct Qcow2Places {
  explicit Qcow2Places(const Qcow2Input& file);

  std::uint64_t l1_offset;
  std::uint64_t l1_bytes;
  std::uint64_t refcount_table_offset;
  std::uint64_t refcount_table_bytes;
  unsigned refcount_order;
  std::uint64_t l2_entry_bytes;
};

inline constexpr std::uint64_t kOffsetMask = 0x00ff'ffff'ffff'fe00;  // Of L1 and L2 entries.
inline constexpr std::uint64_t kCopied = std::uint64_t{1} << 63;
inline constexpr std::uint64_t kCompressed = std::uint64_t{1} << 62;

// Removes entries that lead out of the file or to what is used already, marks those that remain as
// the only reference, and counts the references. What else is wrong stays.
void MendQcow2(Qcow2Input& file);

}  // namespace msb::fuzz

#endif  // MSB_TESTS_FUZZ_QCOW2_MENDER_H_
