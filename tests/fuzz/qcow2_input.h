// qcow2 files as fuzz_qcow2 is given them: of each cluster of more than 4 KiB only the first and
// the last 2 KiB, between which is a hole. So small inputs have clusters of every size.

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

  // As they are given.
  const std::string& bytes() const { return bytes_; }
  std::string& bytes() { return bytes_; }

  // What the header says; of an input that has none, 4 KiB, with which all is as it is given.
  unsigned cluster_bits() const { return cluster_bits_; }
  std::uint64_t cluster_bytes() const { return std::uint64_t{1} << cluster_bits_; }
  // Of a cluster, bytes that are given.
  std::uint64_t given_bytes() const;
  std::uint64_t clusters() const;

  // Where in the file the byte is that is given here.
  std::uint64_t FileOffset(std::size_t position) const;

  // Of the file, in network byte order. What is not given is 0, and stays so.
  std::uint64_t Number(std::uint64_t offset, std::size_t length) const;
  void SetNumber(std::uint64_t offset, std::size_t length, std::uint64_t value);

  // Writes the file. What is zeros becomes holes.
  void WriteTo(const MemoryFile& file) const;

 private:
  // The reverse of FileOffset; nothing if not all of length bytes are given.
  std::optional<std::size_t> Position(std::uint64_t offset, std::size_t length) const;

  std::string bytes_;
  unsigned cluster_bits_ = 12;
};

}  // namespace msb::fuzz

#endif  // MSB_TESTS_FUZZ_QCOW2_INPUT_H_
