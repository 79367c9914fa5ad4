// SPDX-License-Identifier: Apache-2.0

#include "src/archive/vmdk.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <stdexcept>

#include "src/archive/image_names.h"
#include "src/base/fields.h"
#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::archive {
namespace {

constexpr std::uint64_t kSectorBytes = 512;
// Large enough for any file, and small enough that no sum of extents overflows.
constexpr std::uint64_t kMaxSectors = base::kMaxJsonInteger / kSectorBytes;
constexpr std::string_view kFirstLine = "# Disk DescriptorFile";

[[noreturn]] void RefuseVmdk(const std::string& problem) { throw std::invalid_argument(problem); }

bool IsAlphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// Returns true if the line is a setting, KEY=VALUE or KEY = "VALUE", that the runtimes write.
// Others could name a parent disk.
bool IsSetting(std::string_view line) {
  if (line == "version=1" || line == "parentCID=ffffffff" ||
      line == "createType=\"twoGbMaxExtentFlat\"") {
    return true;
  }
  if (line.starts_with("CID=")) {
    line.remove_prefix(4);
    return line.size() == 8 && std::all_of(line.begin(), line.end(), IsAlphanumeric);
  }
  const std::size_t equals = line.find(" = \"");
  if (!line.starts_with("ddb.") || !line.ends_with('"') || equals == std::string_view::npos) {
    return false;
  }
  const std::string_view key = line.substr(0, equals);
  line.remove_prefix(equals + 4);
  if (line.empty()) return false;
  line.remove_suffix(1);
  return std::all_of(key.begin(), key.end(),
                     [](char c) { return c == '.' || IsAlphanumeric(c); }) &&
         std::all_of(line.begin(), line.end(), IsAlphanumeric);
}

std::optional<std::uint64_t> ParseSectors(std::string_view text) {
  std::uint64_t sectors = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), sectors);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  if (!whole || sectors > kMaxSectors || (text[0] == '0' && text.size() > 1)) return std::nullopt;
  return sectors;
}

// An extent, and the directory of the cache that its path is in.
struct PlacedExtent {
  VmdkExtent extent;
  std::string_view cache;
};

// Splits the path of a file in a cache into the directory of the cache and "fsmeta/FILE" or
// "layers/FILE". Returns nothing for any other path.
std::optional<PlacedExtent> SplitPath(std::string_view path) {
  const std::size_t name = path.rfind('/');
  if (!path.starts_with('/') || name == 0 || path.find('"') != std::string_view::npos) {
    return std::nullopt;
  }
  const std::size_t kind = path.rfind('/', name - 1);
  PlacedExtent placed;
  placed.extent.file = path.substr(kind + 1);
  placed.cache = path.substr(0, kind);
  if (!IsJoinedFile(placed.extent.file)) return std::nullopt;
  return placed;
}

// Parses SECTORS FLAT "PATH" FIRST or SECTORS ZERO.
std::optional<PlacedExtent> ParseExtent(std::string_view line) {
  const std::size_t space = line.find(' ');
  const auto sectors = ParseSectors(line.substr(0, space));
  if (!sectors || *sectors == 0 || space == std::string_view::npos) return std::nullopt;
  line.remove_prefix(space + 1);
  if (line == "ZERO") return PlacedExtent{{.file = {}, .sectors = *sectors}, {}};
  constexpr std::string_view kFlat = "FLAT \"";
  const std::size_t end = line.rfind("\" ");
  if (!line.starts_with(kFlat) || end == std::string_view::npos || end < kFlat.size()) {
    return std::nullopt;
  }
  const auto first = ParseSectors(line.substr(end + 2));
  auto placed = SplitPath(line.substr(kFlat.size(), end - kFlat.size()));
  if (!first || !placed) return std::nullopt;
  placed->extent.sectors = *sectors;
  placed->extent.first_sector = *first;
  return placed;
}

// Removes the first line from text, and returns it without its end.
std::string_view NextLine(std::string_view& text) {
  const std::size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

// Advances next past the extents of one file. Throws std::invalid_argument unless they cover the
// complete file, in order.
void CheckFile(std::vector<VmdkExtent>::const_iterator& next,
               std::vector<VmdkExtent>::const_iterator end, const JoinedFile& file) {
  if (file.bytes == 0 || file.bytes % kSectorBytes != 0) {
    RefuseVmdk(fmt::format("{} has {}, but must have a positive multiple of 512", file.file,
                           base::Count(file.bytes, "byte")));
  }
  const std::uint64_t sectors = file.bytes / kSectorBytes;
  for (std::uint64_t covered = 0; covered < sectors; ++next) {
    next = std::find_if(next, end, [](const VmdkExtent& extent) { return !extent.file.empty(); });
    if (next == end) RefuseVmdk(fmt::format("sector {} of {} is missing", covered, file.file));
    if (next->file != file.file || next->first_sector != covered ||
        next->sectors > sectors - covered) {
      RefuseVmdk(
          fmt::format("expected sector {} of {}, which has {}, found {} of {} from sector {} on",
                      covered, file.file, base::Count(sectors, "sector"),
                      base::Count(next->sectors, "sector"), next->file, next->first_sector));
    }
    covered += next->sectors;
  }
}

}  // namespace

std::vector<VmdkExtent> ParseVmdk(std::string_view text) {
  if (text.size() > kMaxVmdkBytes)
    RefuseVmdk(fmt::format("it is longer than {} bytes", kMaxVmdkBytes));
  if (!base::IsUtf8(text) || text.find('\0') != std::string_view::npos) {
    RefuseVmdk("it is not UTF-8 text");
  }
  std::vector<VmdkExtent> extents;
  std::optional<std::string_view> cache;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::string_view line = NextLine(text);
    const auto refuse = [&](std::string_view problem) {
      RefuseVmdk(fmt::format("line {} {}: {}", number, problem, base::Quoted(line)));
    };
    if (number == 1 && line != kFirstLine) refuse(fmt::format("must be '{}'", kFirstLine));
    if (line.starts_with("RW ")) {
      auto placed = ParseExtent(line.substr(3));
      if (!placed) refuse("is not an extent of an image");
      if (!placed->extent.file.empty()) {
        if (cache.value_or(placed->cache) != placed->cache) {
          refuse("names a file in another directory");
        }
        cache = placed->cache;
      }
      extents.push_back(std::move(placed->extent));
    } else if (!line.empty() && !line.starts_with('#') && !IsSetting(line)) {
      refuse("is not supported in the vmdk of an image");
    }
  }
  if (extents.empty()) RefuseVmdk("it lists no extents");
  return extents;
}

void CheckVmdk(const std::vector<VmdkExtent>& extents, const std::vector<JoinedFile>& files) {
  auto next = extents.begin();
  for (const JoinedFile& file : files) CheckFile(next, extents.end(), file);
  next = std::find_if(next, extents.end(), [](const VmdkExtent& e) { return !e.file.empty(); });
  if (next != extents.end()) {
    RefuseVmdk(fmt::format("it names {} after the last file of the image", next->file));
  }
}

std::string FormatVmdk(const std::filesystem::path& cache_dir,
                       const std::vector<VmdkExtent>& extents) {
  const std::string& cache = cache_dir.native();
  if (!cache_dir.is_absolute() || !base::IsUtf8(cache) ||
      cache.find_first_of(std::string_view("\"\n\0", 3)) != std::string::npos) {
    base::Throw(ErrorKind::kUnsupportedOperation,
                "cannot store images in {}: a vmdk requires an absolute path in UTF-8 without "
                "quotation marks and line breaks; set Config::cache_dir to such a path",
                base::Quoted(cache));
  }
  std::string lines;
  std::uint64_t sectors = 0;
  for (const VmdkExtent& extent : extents) {
    sectors += extent.sectors;
    lines += extent.file.empty() ? fmt::format("RW {} ZERO\n", extent.sectors)
                                 : fmt::format("RW {} FLAT \"{}/{}\" {}\n", extent.sectors, cache,
                                               extent.file, extent.first_sector);
  }
  constexpr std::uint64_t kCylinderSectors = 16ULL * 63;
  return fmt::format(
      "{}\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\n\n"
      "# Extent description\n{}\n# The Disk Data Base\n#DDB\nddb.virtualHWVersion = \"4\"\n"
      "ddb.geometry.cylinders = \"{}\"\nddb.geometry.heads = \"16\"\n"
      "ddb.geometry.sectors = \"63\"\nddb.adapterType = \"ide\"\n",
      kFirstLine, lines, (sectors + kCylinderSectors - 1) / kCylinderSectors);
}

}  // namespace msb::archive
