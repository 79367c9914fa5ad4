// SPDX-License-Identifier: Apache-2.0
//
// Fuzzes the qcow2 code with untrusted files: what CheckQcow2 accepts, what a guest would see of
// the disk, and what is written from it.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/disk/disk_image.h"
#include "src/disk/image_writer.h"
#include "src/disk/qcow2_check.h"
#include "src/disk/qcow2_header.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/properties.h"
#include "tests/fuzz/qcow2_input.h"
#include "tests/fuzz/qcow2_reference.h"

// Each input needs buffers of up to 2 MiB. A larger quarantine, in which AddressSanitizer keeps
// freed memory from reuse, would give them new pages every time, which takes longer than everything
// else.
extern "C" const char* __asan_default_options() { return "quarantine_size_mb=8"; }

namespace msb::fuzz {
namespace {

using disk::DiskImage;
using disk::Extent;
using disk::ImageFile;
using disk::Qcow2Header;

using Extents = std::vector<Extent>;

constexpr auto kRefusals = {ErrorKind::kSnapshotIntegrity, ErrorKind::kUnsupportedOperation};

// Limits on what is checked of an input, so that each takes little time.
constexpr std::size_t kMaxExtents = 4096;
constexpr std::size_t kMaxSamples = 4;
constexpr std::uint64_t kWindowBytes = 5000;
constexpr std::uint64_t kMaxFlatData = 4 << 20;
constexpr std::uint64_t kMaxWrittenDisk = std::uint64_t{1} << 40;

// The backing file of the inputs: the same content in both formats, with holes, and with a size
// that is not a multiple of the sector size.
struct Backing {
  Backing() {
    content.resize(40'001);
    for (const Extent& extent : Extents{{0, 5000}, {20'480, 9000}, {39'000, 1001}}) {
      for (std::uint64_t i = extent.offset; i < extent.end(); ++i) {
        content[i] = static_cast<char>(i % 251 + 1);
      }
      raw.Write(content.substr(extent.offset, extent.length), extent.offset);
    }
    std::vector<ImageFile> files;
    files.push_back({raw.OpenToRead(), DiskFormat::kRaw, "backing"});
    WriteFlat(Context::Background(), *disk::OpenImage(Context::Background(), std::move(files)),
              DiskFormat::kQcow2, qcow2.fd());
  }

  MemoryFile raw{"raw"};
  MemoryFile qcow2{"qcow2"};
  std::string content;
};

const Backing& TheBacking() {
  static const Backing backing;
  return backing;
}

// The extents of data that an image has before end.
struct Map {
  Extents extents;
  std::uint64_t end = 0;
  bool damaged = false;  // Whether the map stops at end because of damage.

  std::uint64_t Total() const {
    std::uint64_t total = 0;
    for (const Extent& extent : extents) total += extent.length;
    return total;
  }
  // Returns the parts of the extents that are in range. Adjacent parts are merged.
  Extents Within(const Extent& range) const {
    Extents within;
    for (const Extent& extent : extents) {
      const std::uint64_t begin = std::max(extent.offset, range.offset);
      const std::uint64_t extent_end = std::min(extent.end(), range.end());
      if (begin >= extent_end) continue;
      if (!within.empty() && within.back().end() == begin) {
        within.back().length = extent_end - within.back().offset;
      } else {
        within.push_back({begin, extent_end - begin});
      }
    }
    return within;
  }
};

bool Same(const Extents& a, const Extents& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Extent& x, const Extent& y) {
    return x.offset == y.offset && x.length == y.length;
  });
}

// Maps the data in range, up to the first damage or to kMaxExtents extents.
Map MapOf(const DiskImage& image, const Extent& range) {
  Map map{.end = range.offset};
  while (map.extents.size() < kMaxExtents) {
    const auto next = Accepted([&] { return image.FindData(map.end, range.end()); });
    map.damaged = !next;
    if (map.damaged) return map;
    if (!*next) {
      map.end = range.end();
      return map;
    }
    const Extent& extent = **next;
    Require(extent.length > 0 && extent.offset >= map.end, "extents are in order");
    Require(extent.end() > extent.offset && extent.end() <= range.end(),
            "extents end within what was asked");
    map.end = extent.end();
    if (!map.extents.empty() && extent.offset == map.extents.back().end()) {
      map.extents.back().length += extent.length;
    } else {
      map.extents.push_back(extent);
    }
  }
  return map;
}

Map MapOf(const DiskImage& image) { return MapOf(image, {0, image.size()}); }

// Checks the extents that NextData finds, up to the first damage or to kMaxExtents extents.
void CheckNextData(const DiskImage& image) {
  std::optional<Extent> previous;
  for (std::size_t count = 0; count < kMaxExtents; ++count) {
    const std::uint64_t position = previous ? previous->end() : 0;
    const auto next = Accepted([&] { return image.NextData(position); });
    if (!next || !*next) return;
    const Extent& extent = **next;
    Require(extent.length > 0 && extent.offset >= position && extent.end() <= image.size(),
            "extents are in order");
    Require(!previous || extent.offset > position || previous->length >= disk::kLongExtent,
            "only long extents touch");
    previous = extent;
  }
}

// Returns the bytes in range, or nothing if they are damaged.
std::optional<std::string> ReadBytes(const DiskImage& image, const Extent& range) {
  return Accepted([&] {
    std::string bytes(range.length, '?');
    image.Read(std::as_writable_bytes(std::span(bytes)), range.offset);
    return bytes;
  });
}

// Reads the same bytes in pieces that end at arbitrary offsets.
std::optional<std::string> ReadInPieces(const DiskImage& image, const Extent& range) {
  std::string bytes;
  while (bytes.size() < range.length) {
    const std::uint64_t length = std::min<std::uint64_t>(range.length - bytes.size(), 1777);
    const auto piece = ReadBytes(image, {range.offset + bytes.size(), length});
    if (!piece) return std::nullopt;
    bytes += *piece;
  }
  return bytes;
}

// Reads the same bytes with the reference. Requires map to have the extents that it finds.
std::optional<std::string> ReadReference(Qcow2Reference& reference, const Extent& range,
                                         const Map& map) {
  using Source = Qcow2Reference::Source;
  constexpr std::uint64_t kSectorBytes = 512;
  return Accepted([&] {
    std::string bytes;
    const std::uint64_t first = range.offset / kSectorBytes * kSectorBytes;
    for (std::uint64_t at = first; at < range.end(); at += kSectorBytes) {
      const auto sector = reference.Read(at);
      bytes += sector.bytes;
      // A backing file has its own extents.
      if (at + kSectorBytes > map.end || sector.source == Source::kBacking) continue;
      const Extent whole{at, kSectorBytes};
      Require(Same(map.Within(whole), sector.source == Source::kFile ? Extents{whole} : Extents{}),
              "extents are what the tables say");
    }
    return bytes.substr(range.offset - first, range.length);
  });
}

// Returns windows around both ends of the disk, around the end of map, and around some extents.
Extents SampleOf(const DiskImage& image, const Map& map) {
  Extents windows;
  const auto around = [&](std::uint64_t offset) {
    const std::uint64_t begin = offset - std::min(offset, kWindowBytes / 3);
    if (begin < image.size()) {
      windows.push_back({begin, std::min(kWindowBytes, image.size() - begin)});
    }
  };
  around(0);
  around(map.end);
  around(image.size());
  const std::size_t step = std::max<std::size_t>(map.extents.size() / kMaxSamples, 1);
  for (std::size_t i = 0; i < map.extents.size(); i += step) {
    around(map.extents[i].offset);
    around(map.extents[i].end());
  }
  return windows;
}

void CheckZeros(const std::string& bytes, const Extent& range, const Map& map) {
  std::uint64_t position = range.offset;
  const auto require_zeros_up_to = [&](std::uint64_t end) {
    for (; position < end; ++position) {
      Require(bytes[position - range.offset] == 0, "all that is not data is zeros");
    }
  };
  for (const Extent& extent : map.Within(range)) {
    require_zeros_up_to(extent.offset);
    position = extent.end();
  }
  require_zeros_up_to(std::min(range.end(), map.end));
}

// Requires both images to have the same data in these ranges.
void CheckSame(const DiskImage& image, const DiskImage& other, const Extents& ranges) {
  for (const Extent& range : ranges) {
    Require(ReadBytes(image, range) == ReadBytes(other, range), "both images have the same data");
  }
}

// The check of one input.
class Case {
 public:
  Case(const MemoryFile& file, Qcow2Header header, bool sound, std::size_t lot)
      : file_(file), header_(std::move(header)), sound_(sound), lot_(lot) {}

  void Check() {
    const auto image = Accepted([&] { return disk::OpenImage(Context::Background(), Files()); });
    if (!image) return Require(!sound_, "what is sound is opened");
    Require((*image)->size() == header_.virtual_size, "a disk has the size that the header says");
    CheckImage(**image);
  }

 private:
  bool HasBacking() const { return !header_.backing_file.empty(); }

  std::string_view BackingContent() const {
    return HasBacking() ? std::string_view(TheBacking().content) : std::string_view();
  }

  // Returns the input and the file that it is backed by, if any.
  std::vector<ImageFile> Files() const {
    std::vector<ImageFile> files;
    files.push_back({file_.OpenToRead(), DiskFormat::kQcow2, std::string(kOrigin)});
    if (HasBacking()) {
      const DiskFormat format = header_.backing_format.value_or(DiskFormat::kRaw);
      const Backing& backing = TheBacking();
      const MemoryFile& file = format == DiskFormat::kRaw ? backing.raw : backing.qcow2;
      files.push_back({file.OpenToRead(), format, header_.backing_file});
    }
    return files;
  }

  void CheckImage(const DiskImage& image) {
    const Map map = MapOf(image);
    CheckNextData(image);
    Require(!sound_ || !map.damaged, "the tables of what is sound are read");
    const Extents windows = SampleOf(image, map);
    Qcow2Reference reference(file_.fd(), header_, BackingContent());
    const bool readable = sound_ && !reference.CheckUses();
    for (const Extent& window : windows) CheckWindow(image, map, reference, window, readable);
    if (!sound_ || map.end < image.size() || image.size() > kMaxWrittenDisk) return;
    CheckWritten(image, map, windows, readable);
  }

  // Runs the slowest checks, each on a part of the inputs only, so that more inputs can be tried.
  void CheckWritten(const DiskImage& image, const Map& map, const Extents& windows,
                    bool readable) const {
    switch (lot_ % 8) {
      case 0:
        return CheckOverlay(image, map, windows);
      case 1:
        return CheckFlat(image, map, readable, DiskFormat::kRaw);
      case 2:
        return CheckFlat(image, map, readable, DiskFormat::kQcow2);
      default:
        return;
    }
  }

  void CheckWindow(const DiskImage& image, const Map& map, Qcow2Reference& reference,
                   const Extent& window, bool readable) const {
    const auto bytes = ReadBytes(image, window);
    Require(bytes || !readable, "only what is compressed can be damaged");
    Require(ReadInPieces(image, window) == bytes, "pieces are those of the whole");
    Require(ReadReference(reference, window, map) == bytes, "data is what the tables say");
    if (bytes) CheckZeros(*bytes, window, map);
    const Extent mapped{window.offset, std::min(map.end, window.end()) - window.offset};
    if (map.end <= window.offset) return;
    const Map part = MapOf(image, mapped);
    Require(!part.damaged && part.end == mapped.end(), "a part is as sound as the whole");
    Require(Same(part.Within(mapped), map.Within(mapped)), "a part has the extents of the whole");
  }

  // Requires an empty overlay to show what the image shows.
  void CheckOverlay(const DiskImage& image, const Map& map, const Extents& windows) const {
    static const MemoryFile file("overlay");
    file.Resize(0);
    const disk::Overlay overlay{header_.virtual_size, std::string(kOrigin), DiskFormat::kQcow2};
    disk::WriteOverlay(file.fd(), overlay);
    const Qcow2Header header = disk::CheckQcow2(Context::Background(), file.fd(), "overlay");
    Require(header.backing_file == overlay.backing_file &&
                header.backing_format == overlay.backing_format,
            "an overlay names its backing file");
    std::vector<ImageFile> files = Files();
    files.insert(files.begin(), {file.OpenToRead(), DiskFormat::kQcow2, "overlay"});
    const auto above = disk::OpenImage(Context::Background(), std::move(files));
    Require(above->size() == image.size(), "an overlay has the size of its backing file");
    const Extent all{0, image.size()};
    Require(Same(MapOf(*above).Within(all), map.Within(all)), "an empty overlay has no data");
    CheckSame(image, *above, windows);
  }

  void CheckFlat(const DiskImage& image, const Map& map, bool readable, DiskFormat format) const {
    if (map.Total() > kMaxFlatData) return;
    static const MemoryFile file("flat");
    file.Resize(0);
    const auto written = Accepted([&] {
      WriteFlat(Context::Background(), image, format, file.fd());
      return true;
    });
    if (!written) return Require(!readable, "what is sound is written");
    if (format == DiskFormat::kQcow2) {
      const Qcow2Header header = disk::CheckQcow2(Context::Background(), file.fd(), "flat");
      Require(header.backing_file.empty(), "a flat file stands alone");
    }
    std::vector<ImageFile> files;
    files.push_back({file.OpenToRead(), format, "flat"});
    const auto flat = disk::OpenImage(Context::Background(), std::move(files));
    Require(flat->size() == image.size(), "a flat file has the size of the disk");
    CheckSame(image, *flat, map.extents);
    CheckLessData(*flat, map);
  }

  // Requires data only in clusters in which the image has data.
  static void CheckLessData(const DiskImage& flat, const Map& map) {
    constexpr std::uint64_t kClusterBytes = 64 << 10;
    for (const Extent& extent : MapOf(flat).extents) {
      for (std::uint64_t at = extent.offset / kClusterBytes * kClusterBytes; at < extent.end();
           at += kClusterBytes) {
        Require(!map.Within({at, kClusterBytes}).empty(), "zeros are not written");
      }
    }
  }

  const MemoryFile& file_;
  const Qcow2Header header_;
  const bool sound_;       // Whether CheckQcow2 accepts it.
  const std::size_t lot_;  // A hash of the input.
};

void CheckTable(const Qcow2Header& header, std::uint64_t offset, std::uint64_t length,
                std::uint64_t file_size) {
  Require(offset % header.cluster_bytes() == 0, "tables begin where clusters do");
  Require(length == 0 || (offset > 0 && offset < file_size &&
                          length < file_size - offset + header.cluster_bytes()),
          "tables are in the file");
}

void CheckHeader(const Qcow2Header& header, std::uint64_t file_size) {
  Require(header.version == 2 || header.version == 3, "the version is known");
  Require(header.cluster_bits >= 9 && header.cluster_bits <= 21, "clusters have a known size");
  Require(header.virtual_size % 512 == 0, "disks are whole sectors");
  Require(header.virtual_size <= std::numeric_limits<std::int64_t>::max(),
          "offsets in a disk are those of files");
  Require(header.l1_entries <= (32 << 20) / 8, "the L1 table is not too large");
  CheckTable(header, header.l1_offset, std::uint64_t{header.l1_entries} * 8, file_size);
  const std::uint64_t refcount_bytes = header.refcount_table_clusters * header.cluster_bytes();
  Require(refcount_bytes > 0 && refcount_bytes <= 8 << 20, "the refcount table is not too large");
  CheckTable(header, header.refcount_table_offset, refcount_bytes, file_size);
  Require(header.refcount_order <= 6, "refcounts have at most 64 bits");
  Require(!header.extended_l2 || header.cluster_bits >= 14, "subclusters are whole sectors");
  Require(header.backing_file.size() <= 1023, "the name of the backing file is not too long");
  Require(header.version == 3 || (header.refcount_order == 4 && !header.extended_l2 &&
                                  header.compression == disk::Qcow2Compression::kZlib),
          "version 2 has no features");
}

void CheckFile(const MemoryFile& file, std::size_t lot) {
  const auto header =
      Accepted([&] { return disk::ReadQcow2Header(file.fd(), kOrigin); }, kRefusals);
  const auto checked = Accepted(
      [&] { return disk::CheckQcow2(Context::Background(), file.fd(), kOrigin); }, kRefusals);
  if (!header) return Require(!checked, "what is sound has a header");
  CheckHeader(*header, base::StampOf(file.fd()).size);
  Require(!checked || !header->bitmaps, "bitmaps are refused");
  Accepted([&] {
    disk::CheckBackingName(*header, kOrigin);
    return true;
  });
  Case(file, *header, checked.has_value(), lot).Check();
}

}  // namespace
}  // namespace msb::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace msb::fuzz;
  static const MemoryFile file("input");
  const std::string_view input = AsText(data, size);
  Qcow2Input(std::string(input)).WriteTo(file);
  CheckFile(file, std::hash<std::string_view>()(input));
  return 0;
}
