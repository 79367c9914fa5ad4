// Makes Zstandard frames (RFC 8878): by zstd(1), or by hand where that would not write them.

#ifndef MSB_TESTS_SUPPORT_ZSTD_FRAME_H_
#define MSB_TESTS_SUPPORT_ZSTD_FRAME_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace msb::test {

// One frame with a checksum, as zstd -1 writes it; options are for its command line.
std::string Compress(std::string_view bytes, const std::string& options = "");

struct FramePart {
  std::string bytes = {};
  std::uint64_t zeros = 0;  // Behind the bytes.
};

// One frame without a checksum that stores the parts' bytes as they are, and their zeros in four
// bytes for each 128 KiB. Its header asks for a window of 2^window_log bytes.
std::string StoredFrame(const std::vector<FramePart>& parts, unsigned window_log = 17);

// A frame that decoders skip.
std::string SkippableFrame(std::string_view bytes);

}  // namespace msb::test

#endif  // MSB_TESTS_SUPPORT_ZSTD_FRAME_H_
