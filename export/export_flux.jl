# Writes a case file from a trained Flux.MultiHeadAttention, for `cargo xtask check`.
#
#     include("export_flux.jl")
#     export_case("layer.safetensors", mha, q, k, v; mask)
#
# Takes what the layer takes: arrays of size (features, length, batch), a bias and a mask broadcastable to
# (kv_len, q_len, nheads, batch). The expected outputs are the layer's own, without its dropout.
#
# A safetensors file is eight bytes of header length, a JSON header and raw little-endian data, so it is
# written by hand and needs no package. Julia stores the first axis closest together, a case file the last:
# the sizes are reversed and no byte moves. The weight of a Dense, of size (out, in), thereby becomes
# [in][out], which is what "in_out" says.
#
# Flux gives NaN for a query whose mask leaves it no key, mha gives zeros; such a call is refused here.
#
# This script has been checked by reading only: nothing in this repository's tests runs Julia.

using Flux

element_name(::Type{Bool}) = "BOOL"
element_name(::Type{Float32}) = "F32"

# Bits of a BitArray become bytes; every float becomes Float32; arrays on a device come to the host.
storable(x::AbstractArray{Bool}) = Array{Bool}(x)
storable(x::AbstractArray) = Array{Float32}(x)

json_string(s) = "\"" * replace(s, "\\" => "\\\\", "\"" => "\\\"") * "\""
json_list(x) = "[" * join(x, ",") * "]"

function write_safetensors(path, tensors, metadata)
    ENDIAN_BOM == 0x04030201 || error("safetensors data is little-endian")
    entries = ["\"__metadata__\":{\"mha\":$(json_string(metadata))}"]
    offset = 0
    for (name, x) in tensors
        stop = offset + sizeof(x)
        push!(entries, "\"$name\":{\"dtype\":\"$(element_name(eltype(x)))\"," *
                       "\"shape\":$(json_list(reverse(size(x)))),\"data_offsets\":[$offset,$stop]}")
        offset = stop
    end
    header = "{" * join(entries, ",") * "}"
    header *= " "^mod(-ncodeunits(header), 8)
    open(path, "w") do io
        write(io, UInt64(ncodeunits(header)))
        write(io, header)
        for (_, x) in tensors
            write(io, x)
        end
    end
end

"""
    export_case(path, layer, q, [k, v]; [bias, mask, scores])

Runs `layer` and writes its weights, the inputs and the outputs to `path`. Without `k`: self-attention;
without `v`: the values are the keys.
"""
function export_case(path, layer, q, k=nothing, v=nothing; bias=nothing, mask=nothing, scores=true)
    layer = Flux.testmode!(deepcopy(layer))
    key = k === nothing ? q : k
    value = v === nothing ? key : v
    y, α = layer(q, key, value, bias; mask)
    any(isnan, Array(α)) && !any(isnan, Array(q)) && !any(isnan, Array(key)) &&
        error("a score is NaN: does a query see no key? Flux gives NaN there, mha gives 0")

    tensors = Pair{String,Array}[]
    add!(name, x) = x === nothing || push!(tensors, name => storable(x))
    add!("q", q)
    add!("k", k)
    add!("v", v)
    for (letter, dense) in (("q", layer.q_proj), ("k", layer.k_proj), ("v", layer.v_proj), ("o", layer.out_proj))
        dense.σ === identity || error("a projection with an activation cannot be part of a case")
        add!("w" * letter, dense.weight)
        dense.bias === false || add!("b" * letter, dense.bias)
    end
    add!("bias", bias)
    add!("mask", mask)
    add!("y", y)
    scores && add!("scores", α)

    dims = "{\"q_in\":$(size(q, 1)),\"k_in\":$(size(key, 1)),\"v_in\":$(size(value, 1))," *
           "\"qk\":$(size(layer.q_proj.weight, 1)),\"v\":$(size(layer.v_proj.weight, 1))," *
           "\"out\":$(size(layer.out_proj.weight, 1))}"
    source = "Flux $(pkgversion(Flux)) MultiHeadAttention, $(eltype(y))"
    write_safetensors(path, tensors, "{\"dims\":$dims,\"heads\":$(layer.nheads),\"source\":\"$source\"}")
end

function demo(path)
    layer = MultiHeadAttention((7, 8, 8) => (12, 6) => 5; nheads=3, bias=true)
    q, kv = randn(Float32, 7, 4, 2), randn(Float32, 8, 6, 2)
    mask = reshape([j <= n for j in 1:6, n in (6, 4)], 6, 1, 1, 2)
    export_case(path, layer, q, kv; mask)
end

if abspath(PROGRAM_FILE) == @__FILE__
    length(ARGS) == 1 || error("usage: julia export_flux.jl OUT.safetensors")
    demo(ARGS[1])
end
