// SPDX-License-Identifier: Apache-2.0
//
// qcow2 files in the form that fuzz_qcow2 takes them: of each cluster of more than 4 KiB, an input
// has only the first and the last 2 KiB, with a hole between them. So small inputs can have
// clusters of every size.

#ifndef MSB_TESTS_FUZZ_QCOW2_INPUT_H_
#define MSB_TESTS_FUZZ_QCOW2_INPUT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "tests/fuzz/memory_file.h"

namespace msb::fuzz {

class Qcow2Input {
 public:
  explicit Qcow2Input(std::string bytes);

  // The bytes of the input.
  const std::string& bytes() const { return bytes_; }
  std::string& bytes() { return bytes_; }

  // Returns the value in the header or, if that is invalid, the value for 4 KiB, so that the file
  // equals the input.
  unsigned cluster_bits() const { return cluster_bits_; }
  std::uint64_t cluster_bytes() const { return std::uint64_t{1} << cluster_bits_; }
  // Number of bytes that the input has of each cluster.
  std::uint64_t given_bytes() const;
  std::uint64_t clusters() const;

  // Returns the offset in the file of the input's byte at position.
  std::uint64_t FileOffset(std::size_t position) const;

  // Reads or writes a number of the file, in network byte order. Where the input has no bytes, the
  // number is 0 and cannot be set.
  std::uint64_t Number(std::uint64_t offset, std::size_t length) const;
  void SetNumber(std::uint64_t offset, std::size_t length, std::uint64_t value);

  // Writes the file, with holes for zeros.
  void WriteTo(const MemoryFile& file) const;

 private:
  // Inverts FileOffset. Returns nothing if the input does not have all length bytes.
  std::optional<std::size_t> Position(std::uint64_t offset, std::size_t length) const;

  std::string bytes_;
  unsigned cluster_bits_ = 12;
};

}  // namespace msb::fuzz

#endif  // MSB_TESTS_FUZZ_QCOW2_INPUT_H_
