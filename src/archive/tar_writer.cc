// SPDX-License-Identifier: Apache-2.0

#include "src/archive/tar_writer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "src/archive/tar_format.h"
#include "src/base/throw.h"

namespace msb::archive {
namespace {

using disk::Extent;

// Writes a number as octal digits and a NUL or, if that does not fit, as big-endian binary after a
// byte 0x80.
template <std::size_t kSize>
void SetNumber(std::array<char, kSize>& field, std::uint64_t value) {
  std::uint64_t rest = value;
  for (std::size_t i = kSize - 1; i-- > 0; rest >>= 3) {
    field[i] = static_cast<char>('0' + (rest & 7));
  }
  field[kSize - 1] = '\0';
  if (rest == 0) return;
  rest = value;
  for (std::size_t i = kSize; i-- > 0; rest >>= 8) field[i] = static_cast<char>(rest & 0xff);
  field[0] = static_cast<char>(0x80);
}

TarHeader MakeHeader(std::string_view path, char type, std::uint64_t size, std::int64_t mtime) {
  if (path.size() > kMaxTarPath) {
    base::Throw(ErrorKind::kUnsupportedOperation,
                "path '{}' is too long for an archive: at most {} bytes are supported", path,
                kMaxTarPath);
  }
  TarHeader header{};
  std::copy(path.begin(), path.end(), header.path.begin());
  SetNumber(header.mode, 0100644);
  SetNumber(header.uid, 0);
  SetNumber(header.gid, 0);
  SetNumber(header.size, size);
  SetNumber(header.mtime, static_cast<std::uint64_t>(std::max<std::int64_t>(mtime, 0)));
  header.type = type;
  constexpr std::string_view kMagic("ustar  \0", 8);
  std::copy(kMagic.begin(), kMagic.end(), header.magic.begin());
  SetNumber(header.device_major, 0);
  SetNumber(header.device_minor, 0);
  return header;
}

void SetChecksum(TarHeader& header) {
  header.checksum.fill(' ');
  unsigned sum = 0;
  std::array<unsigned char, kTarRecordBytes> bytes;
  std::memcpy(bytes.data(), &header, bytes.size());
  for (const unsigned char byte : bytes) sum += byte;
  SetNumber(header.checksum, sum);
}

template <typename Record>
void Put(ByteSink& sink, const Record& record) {
  sink.Write(std::as_bytes(std::span(&record, 1)));
}

// Moves the first of the listed ranges into the fields of a record.
template <std::size_t kCount>
void TakeRanges(std::span<const Extent>& listed, std::array<TarRangeField, kCount>& fields) {
  for (TarRangeField& field : fields) {
    if (listed.empty()) return;
    SetNumber(field.offset, listed.front().offset);
    SetNumber(field.length, listed.front().length);
    listed = listed.subspan(1);
  }
}

}  // namespace

void TarWriter::AddFile(std::string_view path, std::string_view content) {
  BeginFile(path, content.size());
  Write(std::as_bytes(std::span(content)));
  EndFile();
}

void TarWriter::BeginFile(std::string_view path, std::uint64_t size) {
  TarHeader header = MakeHeader(path, '0', size, mtime_);
  SetChecksum(header);
  Put(sink_, header);
  expected_ = size;
  padding_ = PaddedToTarRecord(size) - size;
}

void TarWriter::BeginSparseFile(std::string_view path, const SparseMap& map) {
  const std::vector<Extent> listed = map.Listed();
  std::span<const Extent> rest = listed;
  TarHeader header = MakeHeader(path, 'S', map.StoredBytes(), mtime_);
  TakeRanges(rest, header.ranges);
  header.is_extended = rest.empty() ? '\0' : '\1';
  SetNumber(header.real_size, map.size);
  SetChecksum(header);
  Put(sink_, header);
  while (!rest.empty()) {
    TarExtension extension{};
    TakeRanges(rest, extension.ranges);
    extension.is_extended = rest.empty() ? '\0' : '\1';
    Put(sink_, extension);
  }
  expected_ = map.StoredBytes();
  padding_ = PaddedToTarRecord(expected_) - expected_;
}

void TarWriter::Write(std::span<const std::byte> bytes) {
  sink_.Write(bytes);
  expected_ -= bytes.size();
}

void TarWriter::WriteZeros(std::uint64_t count) {
  sink_.WriteZeros(count);
  expected_ -= count;
}

void TarWriter::EndFile() {
  if (expected_ != 0) {
    base::Throw(ErrorKind::kInternal, "an archive entry does not have the size in its header");
  }
  sink_.WriteZeros(padding_);
}

void TarWriter::Finish() {
  sink_.WriteZeros(2 * kTarRecordBytes);
  sink_.Finish();
}

}  // namespace msb::archive
