// Small qcow2 files, written byte by byte without the library's own code.

#ifndef MSB_TESTS_SUPPORT_QCOW2_SAMPLE_H_
#define MSB_TESTS_SUPPORT_QCOW2_SAMPLE_H_

#include <cstdint>
#include <string>

namespace msb::test {

// A file of version 3 with clusters of 4 KiB, of a disk of 2 MiB that begins with content (at most
// 1 MiB) and stands on backing_file, if that is not empty.
std::string Qcow2Sample(const std::string& content, const std::string& backing_file = "");

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_QCOW2_SAMPLE_H_
