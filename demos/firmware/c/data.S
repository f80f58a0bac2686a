/* What the programs have in flash as it lies in files: the weights, and items of the test data. */
    .section .rodata.digits_weights, "a"
    .balign 4
    .global digits_weights
digits_weights:
    .incbin "digits.bin"

    .section .rodata.vowels_weights, "a"
    .balign 4
    .global vowels_weights
vowels_weights:
    .incbin "vowels.bin"

    .section .rodata.images, "a"
    .balign 4
    .global images, images_end
images:
    .incbin "images.bin"
images_end:

    .section .rodata.utterances, "a"
    .balign 4
    .global utterances, utterances_end
utterances:
    .incbin "utterances.bin"
utterances_end:
