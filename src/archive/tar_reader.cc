#include "src/archive/tar_reader.h"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "src/archive/sparse_map.h"
#include "src/base/fields.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::archive {
namespace {

using base::Throw;
using disk::Extent;

constexpr std::uint64_t kRecordBytes = 512;
constexpr std::size_t kTypeOffset = 156;  // In a header record.
// Ranges in the header of a sparse entry, and in each record that extends it.
constexpr std::uint64_t kRangesInHeader = 4;
constexpr std::uint64_t kRangesInExtension = 21;
// The longest header, the map of a sparse entry included; a map of kMaxSparseRanges takes 6.4 MiB.
constexpr std::uint64_t kMaxHeaderBytes = 8 << 20;

[[noreturn]] void Refuse(std::string_view problem) {
  Throw(ErrorKind::kSnapshotIntegrity, "the archive is damaged: {}", problem);
}

std::uint64_t Padded(std::uint64_t size) {
  return (size + kRecordBytes - 1) / kRecordBytes * kRecordBytes;
}

std::uint64_t ExtensionRecords(std::uint64_t ranges) {
  if (ranges <= kRangesInHeader) return 0;
  return (ranges - kRangesInHeader + kRangesInExtension - 1) / kRangesInExtension;
}

std::vector<Extent> RangesOf(archive_entry* entry) {
  std::vector<Extent> ranges;
  archive_entry_sparse_reset(entry);
  la_int64_t offset = 0;
  la_int64_t length = 0;
  while (archive_entry_sparse_next(entry, &offset, &length) == ARCHIVE_OK) {
    ranges.push_back({static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(length)});
  }
  if (ranges.size() > kMaxSparseRanges) {
    Refuse("an entry has more ranges than the " + std::to_string(kMaxSparseRanges) + " allowed");
  }
  return ranges;
}

bool IsZero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
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
  std::span<const std::byte> block = prefetched_ ? *prefetched_ : input_.Next();
  prefetched_.reset();
  header_bytes_ += block.size();
  if (header_bytes_ > kMaxHeaderBytes + ArchiveInput::kBlockBytes) {
    Refuse("a header is longer than " + std::to_string(kMaxHeaderBytes) + " bytes");
  }
  block_start_ += block_.size();
  block_ = block;
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
  const char* message = archive_error_string(reader_.get());
  Refuse(message == nullptr ? "it is no tar stream" : message);
}

std::optional<char> TarReader::PeekType() {
  // All blocks but the last are whole records, so a record is never in two of them.
  std::span<const std::byte> block = block_;
  std::uint64_t offset = next_header_ - block_start_;
  if (offset >= block.size()) {
    offset -= block.size();
    if (!prefetched_) prefetched_ = input_.Next();
    block = *prefetched_;
  }
  if (offset + kRecordBytes > block.size()) return std::nullopt;
  return static_cast<char>(block[offset + kTypeOffset]);
}

std::optional<TarEntry> TarReader::Next() {
  const std::optional<char> type = PeekType();
  header_bytes_ = 0;
  archive_entry* entry = nullptr;
  const int result = archive_read_next_header(reader_.get(), &entry);
  if (result != ARCHIVE_OK && result != ARCHIVE_EOF) Fail();
  const auto start = static_cast<std::uint64_t>(archive_read_header_position(reader_.get()));
  CheckAccounted(start);
  if (result == ARCHIVE_EOF) {
    CheckEnd(start);
    return std::nullopt;
  }
  entry_ = Describe(entry, type.value_or('\0'));
  entry_start_ = start;
  delivered_ = 0;
  position_ = 0;
  return entry_;
}

TarEntry TarReader::Describe(archive_entry* entry, char type) const {
  const char* path = archive_entry_pathname(entry);
  TarEntry described;
  described.path = path == nullptr ? "" : path;
  const std::string quoted = base::Quoted(described.path);
  described.is_directory = type == '5';
  described.is_sparse = type == 'S';
  const bool is_file = described.is_sparse || type == '0' || type == '\0';
  const auto expected_type = is_file ? AE_IFREG : AE_IFDIR;
  if ((!is_file && !described.is_directory) || archive_entry_filetype(entry) != expected_type ||
      archive_entry_hardlink(entry) != nullptr || archive_entry_symlink(entry) != nullptr) {
    Refuse("'" + quoted + "' is neither a file nor a directory");
  }
  if (described.path.find('\0') != std::string::npos || archive_entry_size_is_set(entry) == 0 ||
      archive_entry_size(entry) < 0 ||
      static_cast<std::uint64_t>(archive_entry_size(entry)) > base::kMaxJsonInteger) {
    Refuse("'" + quoted + "' has an impossible size");
  }
  described.size = static_cast<std::uint64_t>(archive_entry_size(entry));
  described.stored = described.size;
  if (described.is_sparse) {
    described.ranges = RangesOf(entry);
    described.stored = 0;
    for (const Extent& range : described.ranges) described.stored += range.length;
    // libarchive lists no range if one fills the file.
    if (described.ranges.empty()) described.stored = described.size;
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
    if (delivered_ != entry_->stored) Refuse("'" + base::Quoted(entry_->path) + "' is not whole");
    next_header_ = static_cast<std::uint64_t>(archive_filter_bytes(reader_.get(), 0));
    return std::nullopt;
  }
  if (result != ARCHIVE_OK) Fail();
  const auto start = static_cast<std::uint64_t>(offset);
  if (offset < 0 || start < position_ || start > entry_->size || size > entry_->size - start) {
    Refuse("'" + base::Quoted(entry_->path) + "' has ranges that overlap or leave the file");
  }
  position_ = start + size;
  delivered_ += size;
  return TarPiece{start, {static_cast<const std::byte*>(bytes), size}};
}

void TarReader::CheckAccounted(std::uint64_t next_header) const {
  if (!entry_) {
    if (next_header != 0) Refuse("something comes before its first entry");
    return;
  }
  const std::uint64_t known = kRecordBytes + Padded(delivered_);
  const std::uint64_t all = next_header - entry_start_;
  // A map may end in a range of length zero that libarchive does not tell of.
  const std::uint64_t ranges = entry_->ranges.size();
  const bool accounted =
      next_header == next_header_ &&
      (all == known ||
       (entry_->is_sparse && (all == known + kRecordBytes * ExtensionRecords(ranges) ||
                              all == known + kRecordBytes * ExtensionRecords(ranges + 1))));
  if (!accounted) {
    Refuse("'" + base::Quoted(entry_->path) + "' is followed by what belongs to no entry");
  }
}

void TarReader::CheckEnd(std::uint64_t end) {
  std::uint64_t total = block_start_ + block_.size();
  bool sound = total >= end && IsZero(block_.subspan(std::min<std::uint64_t>(
                                   block_.size(), end - std::min(end, block_start_))));
  header_bytes_ = 0;  // More padding than the longest header is refused as one.
  for (bool more = true; more && sound;) {
    const std::span<const std::byte> block = FetchBlock();
    more = !block.empty();
    total += block.size();
    sound = IsZero(block);
  }
  if (!sound) Refuse("something follows its end");
  if (total < end + 2 * kRecordBytes || total % kRecordBytes != 0) {
    Refuse("it does not end in two records of zeros");
  }
}

}  // namespace msb::archive
