// SPDX-License-Identifier: Apache-2.0
//
// How values are formatted for people.

#include "tools/msb-snapshot/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <clocale>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "tools/msb-snapshot/exit_code.h"
#include "tools/msb-snapshot/options.h"
#include "tools/msb-snapshot/progress_bar.h"
#include "tools/msb-snapshot/table.h"
#include "tools/msb-snapshot/wording.h"

namespace msb::program {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

TEST(TextTest, HumanBytesUsesTheLargestUnit) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(1023), "1023 B");
  EXPECT_EQ(HumanBytes(1024), "1.0 KiB");
  EXPECT_EQ(HumanBytes(1536), "1.5 KiB");
  EXPECT_EQ(HumanBytes((1 << 20) - 1), "1.0 MiB");
  EXPECT_EQ(HumanBytes(5ULL << 40), "5.0 TiB");
  EXPECT_EQ(HumanBytes(~0ULL), "16.0 EiB");
}

TEST(TextTest, HumanDurationShowsHoursOnlyIfThereAreAny) {
  EXPECT_EQ(HumanDuration(seconds(-1)), "0:00");
  EXPECT_EQ(HumanDuration(seconds(3)), "0:03");
  EXPECT_EQ(HumanDuration(seconds(754)), "12:34");
  EXPECT_EQ(HumanDuration(seconds(3599)), "59:59");
  EXPECT_EQ(HumanDuration(seconds(3723)), "1:02:03");
  EXPECT_EQ(HumanDuration(seconds(360'000)), "100:00:00");
}

TEST(TextTest, ParseDurationTakesPeoplesUnits) {
  EXPECT_EQ(ParseDuration("90s"), seconds(90));
  EXPECT_EQ(ParseDuration("5m"), seconds(300));
  EXPECT_EQ(ParseDuration("12h"), seconds(43'200));
  EXPECT_EQ(ParseDuration("30d"), seconds(2'592'000));
  EXPECT_EQ(ParseDuration("2w"), seconds(1'209'600));
  EXPECT_EQ(ParseDuration("1d12h"), seconds(129'600));
  EXPECT_EQ(ParseDuration("0s"), seconds(0));
  for (const auto* text : {"", "30", "d", "-1d", "1.5h", "1 d", "1y", "1D", "1d ", "d1",
                           "99999999999999999999s", "9223372036854775807w", "40000000000d"}) {
    EXPECT_EQ(ParseDuration(text), std::nullopt) << text;
  }
}

TEST(TextTest, Rfc3339HasNanosecondsInUtc) {
  using Time = std::chrono::system_clock::time_point;
  EXPECT_EQ(Rfc3339(Time()), "1970-01-01T00:00:00.000000000Z");
  EXPECT_EQ(Rfc3339(Time(seconds(1'700'000'000)) + std::chrono::microseconds(5)),
            "2023-11-14T22:13:20.000005000Z");
  EXPECT_EQ(Rfc3339(Time(std::chrono::milliseconds(-1))), "1969-12-31T23:59:59.999000000Z");
}

TEST(TextTest, ShortDigestKeepsTheAlgorithm) {
  EXPECT_EQ(ShortDigest("sha256:0123456789abcdef0123"), "sha256:0123456789ab");
  EXPECT_EQ(ShortDigest("-"), "-");
}

TEST(TextTest, CountAddsAnS) {
  EXPECT_EQ(Count(0, "snapshot"), "0 snapshots");
  EXPECT_EQ(Count(1, "snapshot"), "1 snapshot");
}

TEST(PrintableTest, KeepsText) {
  EXPECT_EQ(Printable("plain, é, 日本, 🙂"), "plain, é, 日本, 🙂");
  EXPECT_EQ(Printable(""), "");
}

TEST(PrintableTest, EscapesControlCharacters) {
  EXPECT_EQ(Printable("a\x1b[31mb"), "a\\x1b[31mb");
  EXPECT_EQ(Printable("a\nb\tc\rd\x7f"), "a\\x0ab\\x09c\\x0dd\\x7f");
  EXPECT_EQ(Printable(std::string("\0", 1)), "\\x00");
}

TEST(PrintableTest, EscapesCharactersThatReorderOrHideOthers) {
  EXPECT_EQ(Printable("a\xe2\x80\xaez"), "a\\xe2\\x80\\xaez");
  EXPECT_EQ(Printable("\xe2\x80\x8b"), "\\xe2\\x80\\x8b");
  EXPECT_EQ(Printable("\xe2\x81\xa6\xef\xbb\xbf"), "\\xe2\\x81\\xa6\\xef\\xbb\\xbf");
  EXPECT_EQ(Printable("…–€"), "…–€");
}

// A terminal may take U+009B for the beginning of an escape sequence; so may one that does not use
// UTF-8 for the byte 0x9b.
TEST(PrintableTest, EscapesC1AndBytesThatAreNotUtf8) {
  EXPECT_EQ(Printable("\xc2\x9b"), "\\xc2\\x9b");
  EXPECT_EQ(Printable("\x9b"), "\\x9b");
  EXPECT_EQ(Printable("\xc2"), "\\xc2");
  EXPECT_EQ(Printable("\xe2\x82"), "\\xe2\\x82");
  EXPECT_EQ(Printable("\xc0\x9b\xc1\x9b"), "\\xc0\\x9b\\xc1\\x9b");
  EXPECT_EQ(Printable("\xe0\x82\x9b"), "\\xe0\\x82\\x9b");
  EXPECT_EQ(Printable("\xf0\x80\x82\x9b"), "\\xf0\\x80\\x82\\x9b");
  EXPECT_EQ(Printable("\xed\xa0\x80"), "\\xed\\xa0\\x80");
  EXPECT_EQ(Printable("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");
  EXPECT_EQ(Printable("\xc2\xa0"), "\xc2\xa0");
  EXPECT_EQ(Printable("\xf4\x8f\xbf\xbf"), "\xf4\x8f\xbf\xbf");
}

ProgressState StateOf(std::uint64_t done, std::optional<std::uint64_t> total, double elapsed) {
  return {.phase = "export",
          .done = done,
          .total = total,
          .elapsed = std::chrono::duration<double>(elapsed)};
}

TEST(ProgressLineTest, ShowsEverythingIfThereIsRoom) {
  const std::string line = ProgressLine(StateOf(512 << 20, 1024 << 20, 4), 120);
  EXPECT_THAT(line, testing::StartsWith("export  50% [####"));
  EXPECT_THAT(line, HasSubstr("]  128.0 MiB/s  0:04 left  512.0 MiB of 1.0 GiB"));
}

TEST(ProgressLineTest, LeavesTheLastColumnFree) {
  for (std::size_t columns = 0; columns <= 200; ++columns) {
    for (const auto total : {std::optional<std::uint64_t>(), std::optional<std::uint64_t>(0),
                             std::optional<std::uint64_t>(3'000'000'000'000)}) {
      const std::string line = ProgressLine(StateOf(2'999'999'999'999, total, 12'345), columns);
      EXPECT_LT(line.size(), std::max<std::size_t>(columns, 1)) << columns << ": " << line;
      EXPECT_EQ(line, std::string("export").substr(0, columns == 0 ? 0 : columns - 1) +
                          line.substr(std::min<std::size_t>(line.size(), 6)));
    }
  }
}

TEST(ProgressLineTest, HasABarOfTenColumnsOrNone) {
  for (std::size_t columns = 1; columns <= 200; ++columns) {
    const std::string line = ProgressLine(StateOf(1, 4, 0), columns);
    const std::size_t begin = line.find('[');
    if (begin == std::string::npos) continue;
    EXPECT_GE(line.find(']') - begin + 1, 10U) << line;
  }
  EXPECT_THAT(ProgressLine(StateOf(1, 4, 0), 80), HasSubstr("[####"));
  EXPECT_THAT(ProgressLine(StateOf(1, 4, 0), 20), Not(HasSubstr("[")));
}

TEST(ProgressLineTest, SaysOneHundredPercentOnlyAtTheEnd) {
  EXPECT_THAT(ProgressLine(StateOf(999'999, 1'000'000, 1), 80), HasSubstr(" 99%"));
  const std::string end = ProgressLine(StateOf(1'000'000, 1'000'000, 1), 80);
  EXPECT_THAT(end, HasSubstr("100%"));
  EXPECT_THAT(end, Not(HasSubstr("left")));
  EXPECT_THAT(ProgressLine(StateOf(0, 0, 0), 80), HasSubstr("100%"));
}

TEST(ProgressLineTest, HasNoBarIfTheTotalIsNotKnown) {
  EXPECT_EQ(ProgressLine(StateOf(10 << 20, std::nullopt, 2), 80), "export  5.0 MiB/s  10.0 MiB");
}

Table SampleTable() {
  Table table({{"NAME"}, {"IMAGE", 2}, {"SIZE", 1}});
  table.Add({"a", "debian", "1 B"});
  table.Add({"longer", "é", ""});
  return table;
}

TEST(TextTest, ColumnsAreThoseOfTheTerminal) {
  ASSERT_NE(std::setlocale(LC_CTYPE, "C.UTF-8"), nullptr);
  EXPECT_EQ(Columns("plain é…"), 8U);
  EXPECT_EQ(Columns("日本"), 4U);
  EXPECT_EQ(Columns("e\xcc\x81"), 1U);
  EXPECT_EQ(Columns(""), 0U);
  std::setlocale(LC_CTYPE, "C");
  EXPECT_EQ(Columns("plain é…"), 8U);
}

TEST(WordingTest, NamesOptionsInsteadOfTheApi) {
  EXPECT_EQ(InWordsOfProgram("x exists; remove it, or set force to replace it"),
            "x exists; remove it, or replace it with --force");
  EXPECT_EQ(InWordsOfProgram("no kernel is set; set QemuConfig::kernel, or use a bootable disk"),
            "no kernel is set; set --kernel, or use a bootable disk");
  EXPECT_EQ(InWordsOfProgram("in time (deadline exceeded); set a longer deadline"),
            "in time (deadline exceeded); set a longer --timeout");
  EXPECT_EQ(InWordsOfProgram("stop it first, or, on the qemu backend, set "
                             "SnapshotCreateOptions::live"),
            "stop it first, or, on the qemu backend, use --live");
  EXPECT_EQ(InWordsOfProgram("create a sandbox from it with WithImage"),
            "create a sandbox from it with 'msb-snapshot sandbox create --image'");
  EXPECT_EQ(InWordsOfProgram("create a sandbox from it with WithSnapshot"),
            "create a sandbox from it with 'msb-snapshot sandbox create --snapshot'");
  EXPECT_EQ(InWordsOfProgram("import an exported snapshot with Snapshot::Import"),
            "import an exported snapshot with 'msb-snapshot import'");
  EXPECT_EQ(InWordsOfProgram("give an archive that Snapshot::Export wrote"),
            "give an archive that 'msb-snapshot export' wrote");
  EXPECT_EQ(InWordsOfProgram("call Reindex and call Reindex"),
            "run 'msb-snapshot reindex' and run 'msb-snapshot reindex'");
}

TEST(TableTest, AlignsColumns) {
  EXPECT_EQ(SampleTable().Text(0),
            "NAME    IMAGE   SIZE\n"
            "a       debian  1 B\n"
            "longer  é\n");
}

TEST(TableTest, LeavesOutWhatATerminalHasNoRoomFor) {
  EXPECT_EQ(SampleTable().Text(20), SampleTable().Text(0));
  EXPECT_EQ(SampleTable().Text(19), "NAME    SIZE\na       1 B\nlonger\n");
  EXPECT_EQ(SampleTable().Text(3), "NAME\na\nlonger\n");
}

TEST(TableTest, EscapesControlCharacters) {
  Table table({{"NAME"}});
  table.Add({"a\x1b[2J\nb"});
  EXPECT_EQ(table.Text(0), "NAME\na\\x1b[2J\\x0ab\n");
}

TEST(ExitCodeTest, EveryKindHasACodeOfItsOwn) {
  std::set<int> codes;
  for (int kind = 0; kind <= static_cast<int>(ErrorKind::kRegistryUnavailable); ++kind) {
    codes.insert(ExitCodeOf(static_cast<ErrorKind>(kind)));
  }
  EXPECT_EQ(codes.size(), static_cast<std::size_t>(ErrorKind::kRegistryUnavailable) + 1);
  EXPECT_EQ(*codes.begin(), 10);
}

TEST(LabelsTest, ParsesLabels) {
  EXPECT_EQ(ParseLabels({"a=b", "c=", "d=e=f"}),
            (std::map<std::string, std::string>{{"a", "b"}, {"c", ""}, {"d", "e=f"}}));
  EXPECT_THROW(ParseLabels({"a=b", "a=x"}), CLI::ValidationError);
  EXPECT_THROW(ParseLabels({"a"}), CLI::ValidationError);
  EXPECT_THROW(ParseLabels({"=b"}), CLI::ValidationError);
}

}  // namespace
}  // namespace msb::program
