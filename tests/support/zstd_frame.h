// SPDX-License-Identifier: Apache-2.0
//
// Makes Zstandard frames (RFC 8878): with zstd(1), or byte by byte where zstd(1) cannot write them.

#ifndef MSB_TESTS_SUPPORT_ZSTD_FRAME_H_
#define MSB_TESTS_SUPPORT_ZSTD_FRAME_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace msb::test {

// Returns one frame with a checksum, as "zstd -1" writes it; options are added to the command line.
std::string Compress(std::string_view bytes, const std::string& options = "");

struct FramePart {
  std::string bytes = {};
  std::uint64_t zeros = 0;  // Number of zeros after the bytes.
};

// Returns one frame without a checksum. It stores the parts' bytes uncompressed and their zeros as
// runs, in four bytes for each 128 KiB. Its header asks for a window of 2^window_log bytes.
std::string StoredFrame(const std::vector<FramePart>& parts, unsigned window_log = 17);

// Returns a skippable frame, which decoders ignore.
std::string SkippableFrame(std::string_view bytes);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_ZSTD_FRAME_H_
