// A photo before it is sent: made small, and judged by the numbers of inference/photo_quality.py. Knows no form, and of the gate's
// problems only size, light, blur and missing skin: colour casts and what covers a lesion are found by the service.
"use strict";
const Photo = (() => {
  // The mean of the pixels below each new one, one direction at a time: Pillow's box filter.
  const boxed = (from, width, height, toWidth, toHeight) => {
    const wide = new Float32Array(toWidth * height * 3);
    for (let x = 0; x < toWidth; x += 1) {
      const scale = width / toWidth;
      const low = Math.max(0, Math.floor((x + 0.5) * scale - scale / 2 + 0.5));
      const high = Math.max(low + 1, Math.min(width, Math.floor((x + 0.5) * scale + scale / 2 + 0.5)));
      for (let y = 0; y < height; y += 1) {
        let red = 0, green = 0, blue = 0;
        for (let at = (y * width + low) * 4, end = (y * width + high) * 4; at < end; at += 4) { red += from[at]; green += from[at + 1]; blue += from[at + 2]; }
        const to = (y * toWidth + x) * 3, n = high - low;
        wide[to] = red / n; wide[to + 1] = green / n; wide[to + 2] = blue / n;
      }
    }
    const small = new Float32Array(toWidth * toHeight * 3);
    for (let y = 0; y < toHeight; y += 1) {
      const scale = height / toHeight;
      const low = Math.max(0, Math.floor((y + 0.5) * scale - scale / 2 + 0.5));
      const high = Math.max(low + 1, Math.min(height, Math.floor((y + 0.5) * scale + scale / 2 + 0.5)));
      for (let at = 0; at < toWidth * 3; at += 1) {
        let sum = 0;
        for (let row = low; row < high; row += 1) sum += wide[row * toWidth * 3 + at];
        small[y * toWidth * 3 + at] = Math.round(sum / (high - low));
      }
    }
    return small;
  };

  const percentile = (sorted, percent) => {
    const place = (sorted.length - 1) * percent / 100, low = Math.floor(place), high = Math.min(low + 1, sorted.length - 1);
    return sorted[low] + (sorted[high] - sorted[low]) * (place - low);
  };

  // Mean squared second difference across, down and along both diagonals, the latter at half weight.
  const detail = ({ luma, width, height }) => {
    const sums = [0, 0, 0, 0];
    let n = 0;
    for (let y = 1; y < height - 1; y += 1) {
      for (let x = 1; x < width - 1; x += 1) {
        const at = y * width + x, twice = 2 * luma[at];
        const across = luma[at - 1] + luma[at + 1] - twice, down = luma[at - width] + luma[at + width] - twice;
        const falling = luma[at - width - 1] + luma[at + width + 1] - twice, rising = luma[at - width + 1] + luma[at + width - 1] - twice;
        n += 1; sums[0] += across * across; sums[1] += down * down; sums[2] += falling * falling / 4; sums[3] += rising * rising / 4;
      }
    }
    return sums.map((sum) => (n ? sum / n : 0));
  };

  const halved = ({ luma, width, height }) => {
    const half = { width: width >> 1, height: height >> 1 };
    half.luma = new Float32Array(half.width * half.height);
    for (let y = 0; y < half.height; y += 1) {
      for (let x = 0; x < half.width; x += 1) {
        const at = 2 * y * width + 2 * x;
        half.luma[y * half.width + x] = (luma[at] + luma[at + 1] + luma[at + width] + luma[at + width + 1]) / 4;
      }
    }
    return half;
  };

  // The sharpness of inference/photo_features.py, by the same names.
  const sharpness = (whole, [grey, least]) => {
    const half = halved(whole), coarse = halved(half);
    const details = [whole, half, coarse].map(detail);
    const log = (value) => Math.log(Math.max(value, 1e-3)), mean = (values) => values.reduce((sum, one) => sum + one, 0) / values.length;
    const logs = details.map((four) => four.map(log));
    const light = Math.max(mean(Array.from(whole.luma)) / grey, least) ** 2;
    const fine = logs[0].map((one, at) => one - logs[1][at]), rough = logs[1].map((one, at) => one - logs[2][at]);
    return {
      detail: log(mean(details[0]) / light), least_detail: log(Math.min(...details[0]) / light), half_detail: log(mean(details[1]) / light),
      fine_to_half: mean(fine), least_fine_to_half: Math.min(...fine), half_to_coarse: mean(rough), least_half_to_coarse: Math.min(...rough),
      across_to_down: Math.abs(logs[0][0] - logs[0][1]), half_across_to_down: Math.abs(logs[1][0] - logs[1][1]), half_diagonals: Math.abs(logs[1][2] - logs[1][3]),
    };
  };

  const isBlurred = (whole, gate) => {
    if (Math.min(whole.width, whole.height) < gate.least_judged) return false;
    const found = sharpness(whole, gate.grey);
    return Object.entries(gate.blur.weights).reduce((sum, [name, weight]) => sum + weight * found[name], gate.blur.bias) > 0;
  };

  // `image`: ImageData; `sides`: width and height of the original; `gate`: the page's numbers. Gives what is wrong, by code.
  const judge = (image, sides, gate) => {
    const shrink = Math.min(1, gate.judged_side / Math.max(image.width, image.height));
    const width = Math.max(1, Math.round(image.width * shrink)), height = Math.max(1, Math.round(image.height * shrink));
    const pixels = boxed(image.data, image.width, image.height, width, height);
    const luma = new Float32Array(width * height);
    let skin = 0;
    for (let at = 0; at < luma.length; at += 1) {
      const red = pixels[3 * at], green = pixels[3 * at + 1], blue = pixels[3 * at + 2];
      luma[at] = gate.luma[0] * red + gate.luma[1] * green + gate.luma[2] * blue;
      if (red > gate.skin[0] * blue && red > gate.skin[1] * green && red > gate.skin[2]) skin += 1;
    }
    const sorted = luma.slice().sort();
    const wrong = [];
    if (Math.min(...sides) < gate.least_side) wrong.push("too_small");
    if (percentile(sorted, gate.dark[0]) < gate.dark[1]) wrong.push("too_dark");
    else if (percentile(sorted, gate.bright[0]) > gate.bright[1]) wrong.push("too_bright");
    else {
      if (isBlurred({ luma, width, height }, gate)) wrong.push("blurred");
      if (skin / luma.length < gate.least_skin) wrong.push("no_skin");
    }
    return wrong;
  };

  return {
    judge,
    // A file as it is sent (JPEG bytes without any of its metadata), and what is wrong with it. Throws for what is no photo.
    async prepare(file, sizes, gate) {
      const picture = await createImageBitmap(file);
      const sides = [picture.width, picture.height];
      const shrink = Math.min(1, sizes.side / Math.max(...sides));
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = sides.map((side) => Math.max(1, Math.round(side * shrink)));
      const brush = canvas.getContext("2d", { willReadFrequently: true });
      brush.imageSmoothingQuality = "high";
      brush.fillStyle = "#fff";
      brush.fillRect(0, 0, canvas.width, canvas.height);
      brush.drawImage(picture, 0, 0, canvas.width, canvas.height);
      picture.close();
      const wrong = judge(brush.getImageData(0, 0, canvas.width, canvas.height), sides, gate);
      const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", sizes.quality));
      return { bytes: await blob.arrayBuffer(), wrong };
    },
  };
})();
