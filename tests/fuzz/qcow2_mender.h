// SPDX-License-Identifier: Apache-2.0
//
// Makes the tables of a mutated qcow2 file consistent. Without that, few files would be sound, and
// the code after CheckQcow2 would hardly be reached.

#ifndef MSB_TESTS_FUZZ_QCOW2_MENDER_H_
#define MSB_TESTS_FUZZ_QCOW2_MENDER_H_

#include "tests/fuzz/qcow2_input.h"

namespace msb::fuzz {

// The location and layout of the tables, according to the header.
struct Qcow2Places {
  explicit Qcow2Places(const Qcow2Input& file);

  std::uint64_t l1_offset;
  std::uint64_t l1_bytes;
  std::uint64_t refcount_table_offset;
  std::uint64_t refcount_table_bytes;
  unsigned refcount_order;
  std::uint64_t l2_entry_bytes;
};

inline constexpr std::uint64_t kOffsetMask = 0x00ff'ffff'ffff'fe00;  // In L1 and L2 entries.
inline constexpr std::uint64_t kCopied = std::uint64_t{1} << 63;
inline constexpr std::uint64_t kCompressed = std::uint64_t{1} << 62;

// Clears table entries that point outside the file or to a cluster in use, marks the others as the
// only reference, and sets the refcounts. Leaves other errors alone.
void MendQcow2(Qcow2Input& file);

}  // namespace msb::fuzz

#endif  // MSB_TESTS_FUZZ_QCOW2_MENDER_H_
