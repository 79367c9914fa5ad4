// SPDX-License-Identifier: Apache-2.0

#include "src/archive/tar_reader.h"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/disk/extents.h"
#include "src/disk/image_probe.h"

namespace msb::archive {
namespace {

using base::Throw;

// The longest header, including the map of a sparse entry; a map of kMaxSparseRanges takes 6.1 MiB.
constexpr std::uint64_t kMaxHeaderBytes = 8 << 20;
// The maximum number of zero bytes that may follow the last entry. GNU tar pads to 10 KiB by
// default.
constexpr std::uint64_t kMaxPaddingBytes = 16 << 20;

[[noreturn]] void RefuseArchive(std::string_view problem) {
  Throw(ErrorKind::kSnapshotIntegrity, "the archive is damaged: {}; copy or export it again",
        problem);
}

// Throws kSnapshotIntegrity for an input that begins with these bytes and is not a tar stream.
[[noreturn]] void RefuseOther(std::string_view start) {
  if (start.empty()) {
    Throw(ErrorKind::kSnapshotIntegrity,
          "the archive is empty: the program that should have written it has failed; copy or "
          "export it again");
  }
  if (const auto unpack = disk::UnpackCommandFor(start)) {
    Throw(ErrorKind::kSnapshotIntegrity,
          "the archive is compressed in a format that is not read: unpack it with '{}', and import "
          "the result",
          *unpack);
  }
  if (const auto image = disk::DescribeDiskImage(start)) {
    Throw(
        ErrorKind::kSnapshotIntegrity,
        "it is not a snapshot archive but {}: create a sandbox from it with WithImage, which names "
        "the command that converts it if that is necessary",
        *image);
  }
  Throw(ErrorKind::kSnapshotIntegrity,
        "it is not a snapshot archive, or its start is damaged: give an archive that "
        "Snapshot::Export wrote, or copy it again; create a sandbox from a disk image with "
        "WithImage");
}

}  // namespace

void TarReader::Free::operator()(::archive* reader) const { archive_read_free(reader); }

TarReader::TarReader(ArchiveInput& input) : input_(input), reader_(archive_read_new()) {
  if (!reader_) throw std::bad_alloc();
  if (archive_read_support_format_tar(reader_.get()) != ARCHIVE_OK ||
      archive_read_open(reader_.get(), this, nullptr, &TarReader::Fetch, nullptr) != ARCHIVE_OK) {
    Fail();
  }
}

TarReader::~TarReader() = default;

std::span<const std::byte> TarReader::FetchBlock() {
  const bool peeked = prefetched_.has_value();
  const std::span<const std::byte> block = peeked ? *prefetched_ : input_.Next();
  prefetched_.reset();
  header_bytes_ += block.size();
  if (header_bytes_ > kMaxHeaderBytes + ArchiveInput::kBlockBytes) {
    RefuseArchive("a header is longer than " + std::to_string(kMaxHeaderBytes) + " bytes");
  }
  if (block_start_ == 0 && block_.empty() && !block.empty()) {
    start_.resize(std::min(block.size(), disk::kProbeBytes));
    std::memcpy(start_.data(), block.data(), start_.size());
  }
  block_start_ += block_.size();
  block_ = block;
  if (!peeked) TakeExtensions(block);
  return block;
}

std::ptrdiff_t TarReader::Fetch(::archive* reader, void* self, const void** bytes) {
  auto* const tar = static_cast<TarReader*>(self);
  try {
    const std::span<const std::byte> block = tar->FetchBlock();
    *bytes = block.data();
    return static_cast<std::ptrdiff_t>(block.size());
  } catch (...) {
    tar->failure_ = std::current_exception();
    archive_set_error(reader, EIO, "the input failed");
    return -1;
  }
}

void TarReader::Fail() {
  if (failure_) std::rethrow_exception(failure_);
  if (!entry_ && !disk::IsTarStart(start_)) RefuseOther(start_);
  const char* message = archive_error_string(reader_.get());
  RefuseArchive(message == nullptr ? "it is not a tar stream" : message);
}

void TarReader::PeekHeader() {
  // All blocks but the last consist of complete records, so a record is never split.
  std::span<const std::byte> block = block_;
  std::uint64_t offset = next_header_ - block_start_;
  if (offset >= block.size()) {
    offset -= block.size();
    if (!prefetched_) prefetched_ = input_.Next();
    block = *prefetched_;
  }
  header_ = {};
  if (offset + kTarRecordBytes > block.size()) return;
  block = block.subspan(offset);
  // A record of zeros ends the stream, which libarchive reports.
  if (disk::IsZero(block.first(kTarRecordBytes))) return;
  header_ = RawTarHeader(block.first<kTarRecordBytes>());
  TakeExtensions(block.subspan(kTarRecordBytes));
}

void TarReader::TakeExtensions(std::span<const std::byte> bytes) {
  while (header_.IsIncomplete() && bytes.size() >= kTarRecordBytes) {
    header_.AddExtension(bytes.first<kTarRecordBytes>());
    bytes = bytes.subspan(kTarRecordBytes);
  }
}

std::optional<TarEntry> TarReader::Next() {
  header_bytes_ = 0;
  PeekHeader();
  archive_entry* entry = nullptr;
  const int result = archive_read_next_header(reader_.get(), &entry);
  if (result != ARCHIVE_OK && result != ARCHIVE_EOF) Fail();
  const auto start = static_cast<std::uint64_t>(archive_read_header_position(reader_.get()));
  if (start != next_header_) RefuseArchive("an entry is followed by data that belongs to no entry");
  if (result == ARCHIVE_EOF) {
    // Zeros at the start look like the end of a tar stream.
    if (!entry_ && disk::DescribeDiskImage(start_)) RefuseOther(start_);
    CheckEnd();
    return std::nullopt;
  }
  entry_ = Describe(entry);
  delivered_ = 0;
  position_ = 0;
  next_header_ = start + header_.length() + PaddedToTarRecord(header_.stored());
  return entry_;
}

TarEntry TarReader::Describe(archive_entry* entry) const {
  const char* path = archive_entry_pathname(entry);
  TarEntry described;
  described.path = path == nullptr ? "" : path;
  described.is_directory = header_.type() == '5';
  described.is_sparse = header_.IsSparse();
  const bool is_file = described.is_sparse || header_.type() == '0' || header_.type() == '\0';
  const auto expected_type = is_file ? AE_IFREG : AE_IFDIR;
  const std::string quoted = "entry '" + base::Quoted(described.path) + "'";
  if ((!is_file && !described.is_directory) || archive_entry_filetype(entry) != expected_type ||
      archive_entry_hardlink(entry) != nullptr || archive_entry_symlink(entry) != nullptr) {
    if (header_.type() == 'x' || header_.type() == 'g') {
      Throw(ErrorKind::kSnapshotIntegrity,
            "the archive is not as Snapshot::Export wrote it: {} has a pax header, as archives "
            "have that another program wrote or repacked; copy or export it again",
            quoted);
    }
    RefuseArchive(quoted + " must be a regular file or a directory");
  }
  if (described.is_sparse) header_.CheckMap();
  described.size = header_.size();
  described.stored = header_.stored();
  described.ranges = header_.ranges();
  if (header_.IsIncomplete() || archive_entry_size_is_set(entry) == 0 ||
      static_cast<std::uint64_t>(archive_entry_size(entry)) != described.size) {
    RefuseArchive(quoted + " has an ambiguous header");
  }
  return described;
}

std::optional<TarPiece> TarReader::Read() {
  const void* bytes = nullptr;
  std::size_t size = 0;
  la_int64_t offset = 0;
  header_bytes_ = 0;
  const int result = archive_read_data_block(reader_.get(), &bytes, &size, &offset);
  if (result == ARCHIVE_EOF) {
    if (delivered_ != entry_->stored) {
      RefuseArchive("entry '" + base::Quoted(entry_->path) + "' is truncated");
    }
    return std::nullopt;
  }
  if (result != ARCHIVE_OK) Fail();
  const auto start = static_cast<std::uint64_t>(offset);
  if (offset < 0 || start < position_ || start > entry_->size || size > entry_->size - start) {
    RefuseArchive("entry '" + base::Quoted(entry_->path) +
                  "' has sparse ranges that overlap or exceed the file");
  }
  position_ = start + size;
  delivered_ += size;
  return TarPiece{start, {static_cast<const std::byte*>(bytes), size}};
}

void TarReader::RefuseEnd(std::string_view problem) const {
  if (!entry_) RefuseOther(start_);
  RefuseArchive(problem);
}

void TarReader::CheckEnd() {
  const std::uint64_t end = next_header_;
  std::uint64_t total = block_start_ + block_.size();
  bool sound = total >= end && disk::IsZero(block_.subspan(std::min<std::uint64_t>(
                                   block_.size(), end - std::min(end, block_start_))));
  for (bool more = true; more && sound;) {
    if (total - end > kMaxPaddingBytes) {
      RefuseEnd("its last entry is followed by more than " + std::to_string(kMaxPaddingBytes) +
                " bytes of zeros");
    }
    header_bytes_ = 0;
    const std::span<const std::byte> block = FetchBlock();
    more = !block.empty();
    total += block.size();
    sound = disk::IsZero(block);
  }
  if (!sound) RefuseEnd("data follows its end");
  if (total < end + 2 * kTarRecordBytes || total % kTarRecordBytes != 0) {
    RefuseEnd("it must end with two records of zeros");
  }
}

}  // namespace msb::archive
