// SPDX-License-Identifier: Apache-2.0

#include "src/vmm/qemu_probe_guest.h"

#if defined(__x86_64__)

#include <cstddef>

// QEMU maps the image twice: below 4 GiB, where the processor starts, and below 1 MiB. The first
// instruction jumps from the upper mapping to the lower one, so all code runs at 0xf0000 plus its
// offset. In real mode, that is the offset in the segment 0xf000.
asm(R"(
    .pushsection .rodata
    .balign 8
    .globl msb_probe_guest_begin, msb_probe_guest_end
    .hidden msb_probe_guest_begin, msb_probe_guest_end
msb_probe_guest_begin:

    .code16
    cli
    lgdtl %cs:(.Lprobe_gdt_pointer - msb_probe_guest_begin)
    movl %cr0, %eax
    orb $1, %al                     # PE: protected mode
    movl %eax, %cr0
    ljmpl $8, $(0xf0000 + .Lprobe_protected - msb_probe_guest_begin)

    .code32
.Lprobe_protected:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss

    # The first GiB is mapped to itself in pages of 2 MiB, by three tables at 0x1000, 0x2000, 0x3000.
    cld
    movl $0x1000, %edi
    xorl %eax, %eax
    movl $(3 * 1024), %ecx
    rep stosl
    movl $0x2003, 0x1000            # Present and writable, as are the pages.
    movl $0x3003, 0x2000
    movl $0x3000, %edi
    movl $0x83, %eax                # PS: not a table, but a page.
1:  movl %eax, (%edi)
    addl $8, %edi
    addl $0x200000, %eax
    cmpl $0x40000000, %eax
    jb 1b

    movl $0x20, %eax                # PAE
    movl %eax, %cr4
    movl $0x1000, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx          # EFER
    rdmsr
    orl $0x100, %eax                # LME
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax           # PG: and with it, long mode
    movl %eax, %cr0
    ljmp $24, $(0xf0000 + .Lprobe_long - msb_probe_guest_begin)

    # Each pass fills 32 MiB with words that depend on all before it, and begins with no translations
    # cached, which is slow if the accelerator is unreliable. Five take about 25 ms if it works, and
    # 200 ms without one.
    .code64
.Lprobe_long:
    movl $5, %edx
2:  movl $0x200000, %edi
    movl $0x400000, %ecx
    movq %rdx, %rax
3:  xorq %rdi, %rax
    rolq $7, %rax
    movq %rax, (%rdi)
    addq $8, %rdi
    decl %ecx
    jnz 3b
    movq %cr3, %rax
    movq %rax, %cr3
    decl %edx
    jnz 2b

    movl $0xf8000, %esi             # kMessageOffset
4:  lodsb
    testb %al, %al
    jz 5f
    outb %al, $0xe9
    jmp 4b
5:  movb $16, %al
    outb %al, $0xf4
6:  hlt
    jmp 6b

    .balign 8
.Lprobe_gdt:
    .quad 0
    .quad 0x00cf9a000000ffff        # 8: 32-bit code
    .quad 0x00cf92000000ffff        # 16: data
    .quad 0x00af9a000000ffff        # 24: 64-bit code
.Lprobe_gdt_pointer:
    .word . - .Lprobe_gdt - 1
    .long 0xf0000 + .Lprobe_gdt - msb_probe_guest_begin
msb_probe_guest_end:
    .code64
    .popsection
)");

extern "C" {
__attribute__((visibility("hidden"))) extern const char msb_probe_guest_begin[];
__attribute__((visibility("hidden"))) extern const char msb_probe_guest_end[];
}

namespace msb::vmm {

std::string ProbeGuest() {
  constexpr std::size_t kImageBytes = 1 << 16;
  constexpr std::size_t kMessageOffset = 0x8000;
  constexpr std::size_t kResetVector = 0xfff0;
  std::string image(msb_probe_guest_begin, msb_probe_guest_end);
  image.resize(kImageBytes);  // With zeros, one of which ends the message.
  image.replace(kMessageOffset, kProbeGuestMessage.size(), kProbeGuestMessage);
  // A far jump in real mode, to 0xf000:0.
  image.replace(kResetVector, 5, std::string("\xea\x00\x00\x00\xf0", 5));
  return image;
}

}  // namespace msb::vmm

#else

namespace msb::vmm {

std::string ProbeGuest() { return {}; }

}  // namespace msb::vmm

#endif
