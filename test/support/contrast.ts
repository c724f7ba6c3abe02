import type { Page } from "playwright-core";

/** A piece of text on a page, and how well it can be told from what is behind it. */
export interface TextContrast {
  readonly text: string;
  /** Contrast ratio of WCAG 2.2, 1 to 21: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio */
  readonly ratio: number;
}

/** Red, green and blue from 0 to 255, and the alpha from 0 to 1. */
type Colour = readonly [red: number, green: number, blue: number, alpha: number];

interface PaintedText {
  readonly text: string;
  readonly colour: string;
  /** Grounds from the page's own down to the text's element. */
  readonly layers: readonly { readonly ground: string; readonly opacity: number }[];
}

/** The contrast of all text that is in sight and not disabled. */
export async function textContrasts(page: Page): Promise<TextContrast[]> {
  const texts = await page.locator("body").evaluate((body): PaintedText[] => {
    const view = body.ownerDocument.defaultView;
    const painted: PaintedText[] = [];
    for (const element of body.querySelectorAll("*")) {
      const own = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.textContent.trim());
      const text = own.join(" ").trim() || (element.placeholder ?? "");
      const box = element.getBoundingClientRect();
      const seen = element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
      if (text === "" || !seen || box.width < 2 || element.closest(":disabled, [inert], option") !== null) continue;
      const layers = [];
      for (let at = element; at !== null; at = at.parentElement) {
        const { backgroundColor, opacity } = view.getComputedStyle(at);
        layers.unshift({ ground: String(backgroundColor), opacity: Number(opacity) });
      }
      const part = own.join("") === "" ? "::placeholder" : null;
      painted.push({ text, colour: String(view.getComputedStyle(element, part).color), layers });
    }
    return painted;
  });
  return texts.map(({ text, colour, layers }) => {
    const { front, ground } = paint(layers, [255, 255, 255, 1], colourOf(colour));
    const [darker = 0, lighter = 0] = [luminance(front), luminance(ground)].sort((a, b) => a - b);
    return { text, ratio: (lighter + 0.05) / (darker + 0.05) };
  });
}

/** What is seen of the text and of its ground, layer upon layer; the opacity of a layer is that of all above it. */
function paint(
  [layer, ...above]: PaintedText["layers"],
  backdrop: Colour,
  text: Colour,
): { front: Colour; ground: Colour } {
  if (layer === undefined) return { front: over(text, backdrop), ground: backdrop };
  const { front, ground } = paint(above, over(colourOf(layer.ground), backdrop), text);
  const through = ([red, green, blue]: Colour): Colour => over([red, green, blue, layer.opacity], backdrop);
  return { front: through(front), ground: through(ground) };
}

function over([red, green, blue, alpha]: Colour, [backRed, backGreen, backBlue]: Colour): Colour {
  const mix = (front: number, back: number): number => front * alpha + back * (1 - alpha);
  return [mix(red, backRed), mix(green, backGreen), mix(blue, backBlue), 1];
}

/** Reads `rgb(r, g, b)`, `rgba(r, g, b, a)` and `color(srgb r g b / a)`, the forms of computed colours. */
function colourOf(text: string): Colour {
  const [red = 0, green = 0, blue = 0, alpha = 1] = (text.match(/[\d.]+(?:e-?\d+)?/g) ?? []).map(Number);
  const most = text.startsWith("color(srgb") ? 255 : 1;
  return [red * most, green * most, blue * most, alpha];
}

function luminance([red, green, blue]: Colour): number {
  const linear = (value: number): number => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
}
